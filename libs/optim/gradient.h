#pragma once
// The norm of all gradients, and the factor that clips it.

#include <vector>

#include "model/parameter.h"

namespace nanochat {

// Square root of the sum of squares over all gradients (accumulated in double). Not finite if any element is not finite.
double gradient_norm(const std::vector<Parameter>& parameters);

// Factor that reduces `norm` to at most max_norm, as in torch.nn.utils.clip_grad_norm_:
// min(1, max_norm / (norm + 1e-6)). 1 if max_norm <= 0 (no clipping).
double clip_scale(double norm, double max_norm);

}  // namespace nanochat
