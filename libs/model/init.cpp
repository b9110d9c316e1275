#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/normal.h>

#include <cmath>

#include "model/gpt.h"

namespace nanochat {

void Gpt::init_weights(std::uint64_t seed) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  for (Parameter& parameter : parameters_) {
    const auto fan_out = static_cast<double>(parameter.value.size(0));
    const auto fan_in = static_cast<double>(parameter.value.size(1));
    const double deviation = parameter.kind == ParameterKind::kEmbedding
                                 ? 1.0
                                 : 1.0 / std::sqrt(fan_in) * std::min(1.0, std::sqrt(fan_out / fan_in));  // arXiv 2310.17813
    // Zeroed tensors draw all the same: the reference does, and the draws after them depend on it.
    // On the CPU, whose generator gives one seed the same weights everywhere.
    if (parameter.value.is_cpu()) {
      parameter.value.normal_(0.0, deviation, generator);
    } else {
      parameter.value.copy_(at::empty(parameter.value.sizes(), at::kFloat).normal_(0.0, deviation, generator));
    }
    const bool back_to_residual = parameter.name.ends_with("o_proj.weight") || parameter.name.ends_with("fc2.weight");
    if (back_to_residual || parameter.kind == ParameterKind::kHead) parameter.value.zero_();
  }
  refresh_compute();
}

}  // namespace nanochat
