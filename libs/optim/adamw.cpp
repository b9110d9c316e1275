#include "optim/adamw.h"

#include <cmath>

#include "ops/dispatch.h"

namespace nanochat {

void adamw_step(at::Tensor& value, const at::Tensor& gradient, at::Tensor& first_moment, at::Tensor& second_moment,
                at::Tensor& compute, std::int64_t step, double learning_rate, double grad_scale,
                const AdamWOptions& options) {
  TORCH_CHECK(step >= 1, "adamw_step: step ", step, " must count from 1");
  TORCH_CHECK(value.sizes() == gradient.sizes() && value.sizes() == first_moment.sizes() &&
                  value.sizes() == second_moment.sizes() && value.sizes() == compute.sizes(),
              "adamw_step: shapes differ from ", value.sizes());
  const auto bias1 = static_cast<float>(1.0 - std::pow(options.beta1, static_cast<double>(step)));
  const auto sqrt_bias2 = static_cast<float>(std::sqrt(1.0 - std::pow(options.beta2, static_cast<double>(step))));
  auto* p = ops::typed<float>(value);
  const auto* g = ops::typed<float>(gradient);
  auto* m = ops::typed<float>(first_moment);
  auto* v = ops::typed<float>(second_moment);
  auto* copy = compute.scalar_type() == at::kBFloat16 ? ops::typed<ops::cpu::bf16>(compute) : nullptr;
  ops::parallel_for(value.numel(), 1 << 15, [&](std::int64_t begin, std::int64_t end) {
    ops::cpu::optimizer_kernels().adamw(
        p + begin, g + begin, m + begin, v + begin, copy != nullptr ? copy + begin : nullptr, end - begin,
        static_cast<float>(grad_scale), static_cast<float>(options.beta1), static_cast<float>(options.beta2),
        static_cast<float>(learning_rate), static_cast<float>(options.weight_decay), static_cast<float>(options.eps),
        bias1, sqrt_bias2);
  });
}

}  // namespace nanochat
