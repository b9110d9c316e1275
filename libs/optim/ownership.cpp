#include "optim/ownership.h"

#include <algorithm>
#include <numeric>

namespace nanochat {
namespace {

// Of one iteration on R x C, up to a factor: the Gram matrix and its square, and the product with the matrix.
double newton_schulz_operations(const TensorSpec& spec) {
  const auto small = static_cast<double>(std::min(spec.shape[0], spec.shape[1]));
  const auto large = static_cast<double>(std::max(spec.shape[0], spec.shape[1]));
  return small * small * (2.0 * large + small);
}

}  // namespace

std::int64_t first_row_of(std::int64_t rows, int rank, int ranks) { return rows * rank / ranks; }

std::vector<std::vector<OwnedRows>> divide_parameters(const std::vector<Parameter>& parameters, int ranks) {
  std::vector<TensorSpec> tensors;
  for (const Parameter& parameter : parameters) tensors.push_back(parameter.spec);
  return divide_tensors(tensors, ranks);
}

std::vector<std::vector<OwnedRows>> divide_tensors(const std::vector<TensorSpec>& tensors, int ranks) {
  std::vector<std::vector<OwnedRows>> divided(tensors.size());
  std::vector<std::size_t> matrices;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const TensorSpec& spec = tensors[i];
    if (spec.group == OptimizerGroup::kMatrix) {
      matrices.push_back(i);
      continue;
    }
    if (spec.role == TensorRole::kScalars) {
      divided[i].push_back({0, spec.shape[0], 0});
      continue;
    }
    for (int rank = 0; rank < ranks; ++rank) {
      const std::int64_t first = first_row_of(spec.shape[0], rank, ranks), end = first_row_of(spec.shape[0], rank + 1, ranks);
      if (first < end) divided[i].push_back({first, end, rank});
    }
  }
  std::stable_sort(matrices.begin(), matrices.end(), [&](std::size_t a, std::size_t b) {
    const TensorSpec &one = tensors[a], &other = tensors[b];
    if (one.layer != other.layer) return one.layer < other.layer;
    return newton_schulz_operations(one) > newton_schulz_operations(other);
  });
  std::vector<double> load(static_cast<std::size_t>(ranks));
  for (const std::size_t i : matrices) {
    const auto least = std::min_element(load.begin(), load.end());
    *least += newton_schulz_operations(tensors[i]);
    divided[i].push_back({0, tensors[i].shape[0], static_cast<int>(least - load.begin())});
  }
  return divided;
}

}  // namespace nanochat
