#pragma once
// Smear of nanochat-2026-07: each token's embedding takes a share of that of the token before it, as much as a gate on its own
// first channels says. The neighbour is the embedding before smearing. Source: GPT.forward of the reference at 92d63d4.

#include <ATen/core/Tensor.h>

namespace nanochat::ops {

// y = x + lambda s previous, s = sigmoid(gate . x[0, G)); y = x where there is no previous token. x, y: (N, C) of one type.
// previous: (N, C), or undefined: the row above in x. before: int32 (N), negative where there is no previous token. gate:
// (1, G) of the type of x; lambda: float32, one number. s: float32 (N), 0 where there is no previous token; may be undefined.
void smear(const at::Tensor& x, const at::Tensor& previous, const at::Tensor& before, const at::Tensor& gate,
           const at::Tensor& lambda, at::Tensor& y, at::Tensor& s);

// For previous tokens that are the rows above. dy: (N, C) of start_gradient_type() (ops/residual_mix.h); writes dx (N, C) of the type of x, and adds to d_gate (1, G)
// and d_lambda, both float32. Sums do not depend on the number of threads.
void smear_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& before, const at::Tensor& gate,
                    const at::Tensor& lambda, const at::Tensor& s, at::Tensor& dx, at::Tensor d_gate, at::Tensor d_lambda);

}  // namespace nanochat::ops
