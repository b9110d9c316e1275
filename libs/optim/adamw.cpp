#include "optim/adamw.h"

#include <c10/util/Exception.h>

#include <cmath>

#include "ops/optimizer.h"

namespace nanochat {

void adamw_step(at::Tensor& value, const at::Tensor& gradient, at::Tensor& first_moment, at::Tensor& second_moment,
                at::Tensor& compute, std::int64_t step, double learning_rate, double grad_scale, const AdamWOptions& options) {
  TORCH_CHECK(step >= 1, "adamw_step: step ", step, " must count from 1");
  const auto exponent = static_cast<double>(step);
  ops::adamw(value, gradient, first_moment, second_moment, compute,
             {.grad_scale = grad_scale,
              .beta1 = options.beta1,
              .beta2 = options.beta2,
              .learning_rate = learning_rate,
              .weight_decay = options.weight_decay,
              .eps = options.eps,
              .bias1 = 1.0 - std::pow(options.beta1, exponent),
              .sqrt_bias2 = std::sqrt(1.0 - std::pow(options.beta2, exponent))});
}

}  // namespace nanochat
