#pragma once
// The elementwise parts of the optimizers, each one pass over its state; optim/ combines them. All tensors
// are float32 and contiguous unless said otherwise. Norms and sums do not depend on the number of threads.

#include <ATen/core/Tensor.h>

#include <vector>

namespace nanochat::ops {

struct AdamWArguments {
  double grad_scale = 1.0, beta1 = 0.9, beta2 = 0.999, learning_rate = 0.0, weight_decay = 0.0, eps = 1e-8;
  double bias1 = 1.0, sqrt_bias2 = 1.0;  // 1 - beta1^step, sqrt(1 - beta2^step)
};
// One step of AdamW (Loshchilov & Hutter 2019) with gradient * grad_scale.
// `compute` receives the new value rounded to bfloat16, or is value itself.
void adamw(at::Tensor& value, const at::Tensor& gradient, at::Tensor& first_moment, at::Tensor& second_moment,
           at::Tensor& compute, const AdamWArguments& arguments);

// Matrices of one shape (R, C); `compute` is a bfloat16 copy of value, or value itself.
struct MatrixList {
  std::vector<at::Tensor> value, gradient, momentum, compute;
  void add(at::Tensor new_value, at::Tensor new_gradient, at::Tensor new_momentum, at::Tensor new_compute);
};
// momentum := lerp(gradient * grad_scale, momentum, momentum factor). The direction is the momentum, or with `nesterov`
// one step further, divided by its Frobenius norm + 1e-7. Returns (n, R, C) of `dtype` (float32 or bfloat16).
at::Tensor muon_directions(const MatrixList& matrices, at::ScalarType dtype, double grad_scale, double momentum, bool nesterov);
// value -= rate * update (n, R, C), and updates compute.
void muon_apply(const MatrixList& matrices, const at::Tensor& update, double rate);

// The parts of NorMuon (optim/normuon.h) around the orthogonalisation.
// Momentum and direction as of muon_directions() with Nesterov's step. Then all rows of a matrix get the same norm (MuonEq), and
// the matrix a Frobenius norm of 1 / 1.01. Returns (n, R, C) of `dtype` (float32 or bfloat16).
at::Tensor normuon_directions(const MatrixList& matrices, at::ScalarType dtype, double grad_scale, double momentum);
struct NorMuonArguments {
  double rate = 0.0;
  double weight_decay = 0.0;
  double beta2 = 0.9;
};
// update: the orthogonalised directions (n, R, C). They get the Frobenius norm sqrt(min(R, C)) (Muon+), then what has moved much
// is damped: rows if R >= C, else columns. second_moments: float32 (R, 1) or (1, C) each. Then value -= rate * (update +
// weight_decay * value where the two have one sign or either is zero), and updates compute.
void normuon_apply(const MatrixList& matrices, std::vector<at::Tensor>& second_moments, const at::Tensor& update,
                   const NorMuonArguments& arguments);

// Sum of squares of all elements, accumulated in double.
double sum_of_squares(const std::vector<at::Tensor>& tensors);

}  // namespace nanochat::ops
