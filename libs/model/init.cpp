#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/normal.h>

#include "model/gpt.h"

namespace nanochat {

void Gpt::init_weights(std::uint64_t seed) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  for (Parameter& parameter : parameters()) {
    const InitialValues& initial = parameter.spec.initial;
    // In float32 on the CPU, whose generator gives one seed the same weights everywhere.
    const bool in_place = parameter.value.is_cpu() && parameter.value.scalar_type() == at::kFloat;
    at::Tensor drawn = in_place ? parameter.value : at::empty(parameter.value.sizes(), at::kFloat);
    drawn.normal_(0.0, initial.deviation, generator);
    if (!in_place) parameter.value.copy_(drawn);
    if (initial.zeroed) parameter.value.zero_();
  }
  refresh_compute();
}

}  // namespace nanochat
