#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/normal.h>
#include <ATen/ops/uniform.h>

#include <algorithm>
#include <vector>

#include "model/gpt.h"

namespace nanochat {
namespace {

// values: float32 on the CPU.
void fill_evenly(at::Tensor& values, double first, double last) {
  const std::int64_t n = values.numel();
  float* to = values.data_ptr<float>();
  for (std::int64_t i = 0; i < n; ++i) {
    // In the reference's order of operations: the last bit of its initial weights.
    const double fallen = (first - last) * static_cast<double>(i) / static_cast<double>(std::max<std::int64_t>(n - 1, 1));
    to[i] = static_cast<float>(first - fallen);
  }
}

void fill(at::Tensor& values, const InitialValues& initial, at::Generator& generator) {
  switch (initial.kind) {
    case InitialValues::Kind::kNormal: values.normal_(0.0, initial.deviation, generator); break;
    case InitialValues::Kind::kUniform: values.uniform_(initial.first, initial.last, generator); break;
    case InitialValues::Kind::kEven: fill_evenly(values, initial.first, initial.last); break;
  }
  if (initial.zeroed) values.zero_();
}

}  // namespace

void Gpt::init_weights(std::uint64_t seed) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  std::vector<Parameter*> in_turn;
  for (Parameter& parameter : parameters()) in_turn.push_back(&parameter);
  std::stable_sort(in_turn.begin(), in_turn.end(),
                   [](const Parameter* a, const Parameter* b) { return a->spec.initial.turn < b->spec.initial.turn; });
  for (Parameter* parameter : in_turn) {
    // In float32 on the CPU, whose generator gives one seed the same weights everywhere.
    set_value(*parameter, [&](at::Tensor& value) {
      const bool in_place = value.is_cpu() && value.scalar_type() == at::kFloat;
      at::Tensor drawn = in_place ? value : at::empty(value.sizes(), at::kFloat);
      fill(drawn, parameter->spec.initial, generator);
      if (!in_place) value.copy_(drawn);
    });
  }
  refresh_compute();
}

}  // namespace nanochat
