#include "optim/gradient.h"

#include <algorithm>
#include <cmath>

#include "ops/optimizer.h"

namespace nanochat {

double gradient_norm(const std::vector<Parameter>& parameters) {
  std::vector<at::Tensor> gradients;
  for (const Parameter& parameter : parameters) gradients.push_back(parameter.grad);
  return std::sqrt(ops::sum_of_squares(gradients));
}

double clip_scale(double norm, double max_norm) {
  if (max_norm <= 0.0) return 1.0;
  return std::min(1.0, max_norm / (norm + 1e-6));
}

}  // namespace nanochat
