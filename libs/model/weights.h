#pragma once
// Internal to model: the weights in memory, created from the table of layout.h.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "model/config.h"
#include "model/layout.h"
#include "model/parameter.h"
#include "model/weight_keeper.h"
#include "ops/matrix_product.h"

namespace nanochat {

// One weight; several parameters may share it as slices of its rows.
struct Weight {
  TensorRole role = TensorRole::kMatrix;
  at::Tensor value, compute, grad;          // as in Parameter; a weight without `grad` is not trained
  bool divided = false;                     // `compute` and `grad` are in buffers that layers share; no `value`
  std::optional<ops::PackedMatrix> packed;  // `compute` transposed and packed for the kernels, after pack()
};

class Weights {
 public:
  // Uninitialised.
  Weights(const GptConfig& config, at::ScalarType dtype, at::Device device, Purpose purpose, Residency residency);
  Weights(const Weights&) = delete;
  Weights& operator=(const Weights&) = delete;

  Purpose purpose() const { return purpose_; }
  // Stays in place as long as this object lives.
  Weight& at(std::int64_t layer, WeightSlot slot) { return weights_.at({layer, slot}); }
  std::vector<Parameter>& parameters() { return parameters_; }

  // Those that are not divided:
  void zero_grad();        // creates gradients on first use
  void refresh_compute();  // compute := value; also updates the packed copy
  void pack();             // packs every matrix if the processor has kernels for it

 private:
  class SharedBuffers;

  Purpose purpose_;
  std::map<std::pair<std::int64_t, WeightSlot>, Weight> weights_;
  std::vector<Parameter> parameters_;
};

}  // namespace nanochat
