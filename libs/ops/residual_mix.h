#pragma once
// The residual stream of nanochat-2026-07: before each layer it is scaled, and a share of its beginning x0 is added to it;
// backout takes a share of an earlier state from it before the head, which is the same operation.
// Source: GPT.forward of the reference at 92d63d4.

#include <ATen/core/Tensor.h>

namespace nanochat::ops {

// stream += branch; before = stream; stream = a stream + b x0; y and rstd as rms_norm() of that. All (N, C) of one type, but the
// stream may be float32 beside others in bfloat16; it is then rounded once, to `before`, if that is defined. rstd (N) float32 or
// undefined. a, b: float32, one number each, where the others are. branch and before may be undefined.
//
// Backout takes nine tenths of a trained stream away. What bfloat16 rounds off the stream is then ten times as large beside what
// is left, and training has spikes; compiled, the reference has few of these roundings.
void residual_mix(at::Tensor& stream, const at::Tensor& branch, const at::Tensor& x0, const at::Tensor& a, const at::Tensor& b,
                  at::Tensor& before, at::Tensor& y, at::Tensor& rstd, double eps);

// The type of gradients of x0, to which every layer adds: float32 on a CPU; on a GPU, whose memory these sums keep busy, the
// type of the stream, as in the reference.
at::ScalarType start_gradient_type(const at::TensorOptions& stream);

// The gradient of y, and y and rstd of the forward pass; undefined where nothing read the mixed stream through a norm.
struct NormGradient {
  at::Tensor dy = {}, y = {}, rstd = {};
};

// gradient: that of the mixed stream, which becomes that of the stream before it was mixed. First rms_norm_backward(norm) is
// added to it, in the same pass over memory on a GPU. dx0 (N, C), of start_gradient_type(), (= or +=) b gradient;
// d_a += sum(gradient * before), d_b += sum(gradient * x0), one number each; before and d_a may both be undefined. Sums are
// repeatable: they do not depend on the number of threads.
void residual_mix_backward(const NormGradient& norm, at::Tensor& gradient, const at::Tensor& before, const at::Tensor& x0,
                           const at::Tensor& a, const at::Tensor& b, at::Tensor& dx0, bool accumulate, at::Tensor d_a,
                           at::Tensor d_b);

}  // namespace nanochat::ops
