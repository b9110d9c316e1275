#pragma once
// Gradients as a whole: their norm, and the factor that clips it.

#include <vector>

#include "model/parameter.h"

namespace nanochat {

// Square root of the sum of squares over every gradient (accumulated in double). Not finite if any element is not.
double gradient_norm(const std::vector<Parameter>& parameters);

// Factor that brings `norm` to at most max_norm, as torch.nn.utils.clip_grad_norm_: min(1, max_norm / (norm + 1e-6)).
// 1 when max_norm <= 0 (no clipping).
double clip_scale(double norm, double max_norm);

}  // namespace nanochat
