#pragma once
// Muon (Jordan et al. 2024): momentum, then the update is replaced by the nearest semi-orthogonal
// matrix, computed by a quintic Newton-Schulz iteration. Source: nanochat/muon.py of the reference.

#include <ATen/core/Tensor.h>

#include <span>

#include "ops/optimizer.h"

namespace nanochat {

struct MuonOptions {
  bool nesterov = true;
  int newton_schulz_steps = 5;
  at::ScalarType dtype = at::kBFloat16;  // of the iteration; the reference uses bfloat16
};

// One step X -> a X + (b G + c G G) X with the Gram matrix G = X Xᵀ.
struct QuinticStep {
  double a, b, c;
};
// x: (n, R, C), a batch of matrices. Iterates on the smaller side: if R > C, on the transposed matrices.
at::Tensor quintic_iteration(const at::Tensor& x, std::span<const QuinticStep> steps);

// X -> approximately U Vᵀ of its singular value decomposition; singular values end in about [0.7, 1.2]. x: (n,
// R, C), a batch of matrices of `dtype`, each with a Frobenius norm of at most 1. Iterates on the smaller side.
at::Tensor newton_schulz(const at::Tensor& x, int steps);

// One step on matrices of one shape (R, C). learning_rate is multiplied by sqrt(max(1, R / C)).
void muon_step(const ops::MatrixList& matrices, double learning_rate, double momentum, double grad_scale,
               const MuonOptions& options);

}  // namespace nanochat
