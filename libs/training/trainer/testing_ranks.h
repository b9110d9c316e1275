#pragma once
// For tests only: the micro-batches of a step for several processes, and models for them.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "data/batches/batch.h"
#include "distributed/communicator.h"
#include "model/testing.h"
#include "model/testing_config.h"
#include "optim/optimizer.h"
#include "training/trainer/testing_batch.h"

namespace nanochat::testing {

inline constexpr std::int64_t kVocab = 90, kTime = 16;

inline GptConfig config_of(Architecture architecture) {
  if (architecture == Architecture::kNanochat2026_07) return newest_config(kVocab, kTime);
  GptConfig c = GptConfig::from_depth(2, kVocab, kTime);
  c.n_kv_head = 1;  // queries, keys and values of different shapes
  return c;
}

// Micro-batches of one step, with unequal numbers of supervised tokens.
inline std::vector<TokenBatch> batches_of(std::uint64_t step, int count) {
  std::vector<TokenBatch> batches;
  for (int i = 0; i < count; ++i) {
    TokenBatch batch = random_batch(2, kTime, kVocab, 100 * step + static_cast<std::uint64_t>(i));
    const std::size_t masked = 3 * static_cast<std::size_t>(i) % batch.targets.size();
    std::fill_n(batch.targets.begin(), masked, -1);
    batches.push_back(std::move(batch));
  }
  return batches;
}

inline std::vector<TokenBatch> share_of(const std::vector<TokenBatch>& batches, const Communicator& communicator) {
  std::vector<TokenBatch> mine;
  for (std::size_t i = static_cast<std::size_t>(communicator.rank()); i < batches.size();
       i += static_cast<std::size_t>(communicator.size())) {
    mine.push_back(batches[i]);
  }
  return mine;
}

inline OptimizerOptions options_for(const GptConfig& config) {
  OptimizerOptions o;
  if (config.is_2026()) o.rules = OptimizerRules::kNanochat2026_07;
  o.muon.dtype = o.normuon.dtype = at::kFloat;
  return o;
}

// Architecture and number of processes in the name of a test.
inline std::string name_of(Architecture architecture, int ranks) {
  return std::to_string(ranks) + (architecture == Architecture::kNanochat2026_07 ? "Newest" : "Older");
}

}  // namespace nanochat::testing
