#pragma once
// For tests only: tolerances by precision and random tensors, shared by the tests of the operations.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/normal.h>

#include <cstdint>
#include <vector>

#include "core/random.h"

namespace nanochat::ops::testing {

// Error of an elementwise result, relative to the largest magnitude in the tensor: rounding of the result, and for
// float32 a few more units from sums in another order.
constexpr double kFloatTolerance = 3e-6;
constexpr double kBfloatTolerance = 1.0 / 128;
// A bf16 result that other bf16 results went into, such as a loss of rounded logits.
constexpr double kBf16Chain = 0.02;

inline double tolerance(at::ScalarType dtype) { return dtype == at::kFloat ? kFloatTolerance : kBfloatTolerance; }

// max |a - b| / max |b|, in float64.
inline double relative_error(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor expected = b.to(at::kDouble);
  return a.to(at::kDouble).sub(expected).abs().max().item<double>() / expected.abs().max().item<double>();
}

inline bool any_nan(const at::Tensor& x) { return at::isnan(x).any().item<bool>(); }

// Normal values of a seed, times scale.
inline at::Tensor random_tensor(at::IntArrayRef shape, at::ScalarType dtype, std::uint64_t seed, double scale = 1.0) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  return at::empty(shape).normal_(0.0, scale, generator).to(dtype);
}

// The same values in float64, a leaf of an autograd graph.
inline at::Tensor leaf(const at::Tensor& x) { return x.to(at::kDouble).detach().clone().requires_grad_(true); }

// int32 (S + 1): where documents of these lengths begin, one after the other, and their end.
inline at::Tensor offsets_of(const std::vector<std::int32_t>& lengths) {
  at::Tensor offsets = at::empty({static_cast<std::int64_t>(lengths.size()) + 1}, at::kInt);
  std::int32_t* to = offsets.data_ptr<std::int32_t>();
  *to = 0;
  for (const std::int32_t length : lengths) {
    to[1] = to[0] + length;
    ++to;
  }
  return offsets;
}

}  // namespace nanochat::ops::testing
