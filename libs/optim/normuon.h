#pragma once
// The Muon of nanochat-2026-07: momentum, row equilibration (MuonEq), orthogonalisation by Polar Express (Amsel et al. 2025,
// arXiv 2505.16932), renormalisation (Muon+), variance reduction (NorMuon, Li et al. 2025, arXiv 2510.05491) and cautious weight
// decay. Source: optim.py of the reference at 92d63d4.

#include <ATen/core/Tensor.h>

#include <vector>

#include "ops/optimizer.h"

namespace nanochat {

struct NorMuonOptions {
  double beta2 = 0.9;
  at::ScalarType dtype = at::kBFloat16;  // of the orthogonalisation: the compute type of the model
};

struct NorMuonStep {
  double learning_rate = 0.0;  // multiplied by sqrt(max(1, R / C))
  double momentum = 0.95;
  double weight_decay = 0.0;
  double grad_scale = 1.0;
};

// X -> approximately U Vᵀ in five iterations. x: (n, R, C), spectral norms of at most 1 / 1.01.
at::Tensor polar_express(const at::Tensor& x);

// float32 zeros of the second moment of a matrix (R, C): one for each row if R >= C, (R, 1), else for each column, (1, C).
at::Tensor make_second_moment(const at::Tensor& matrix);

// One step on matrices of one shape. A gradient of zeros is legal: the matrix decays.
void normuon_step(const ops::MatrixList& matrices, std::vector<at::Tensor>& second_moments, const NorMuonStep& step,
                  const NorMuonOptions& options);

}  // namespace nanochat
