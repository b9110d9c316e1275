// Training on a GPU twice, with the same bits. Skipped with a message where no GPU is. A program of its own: the first
// DeterministicScope of a process comes before its first product.

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "model/testing.h"
#include "ops/device.h"
#include "training/trainer/testing_batch.h"
#include "training/trainer/train_step.h"

namespace nanochat {
namespace {

constexpr std::int64_t kVocabulary = 4096, kRows = 8, kTime = 1024;

TokenBatch batch_of(bool packed) {
  TokenBatch batch = testing::random_batch(kRows, kTime, kVocabulary, 5);
  if (packed) {  // a document of 600 tokens and the rest of each row
    for (std::int32_t row = 0; row < kRows; ++row) {
      const auto first = static_cast<std::int32_t>(row * kTime);
      batch.documents.insert(batch.documents.end(), {first, first + 600});
    }
    batch.documents.push_back(kRows * kTime);
  }
  return batch;
}

struct Trained {
  std::vector<double> losses;
  std::vector<at::Tensor> weights;
  std::vector<std::string> names;
};

Trained train(Architecture architecture, bool packed, bool fp8) {
  constexpr int kSteps = 4;
  const GptConfig config = GptConfig::from_depth(6, kVocabulary, kTime, architecture);
  OptimizerOptions options;
  if (config.is_2026()) options.rules = OptimizerRules::kNanochat2026_07;
  Gpt model(config, at::kBFloat16, at::Device(at::kCUDA, 0));
  model.init_weights(3);
  model.set_fp8(fp8);
  Optimizer optimizer(model.parameters(), config.n_embd, options);
  const std::vector<TokenBatch> batches{batch_of(packed)};
  Trained trained;
  for (int step = 0; step < kSteps; ++step) trained.losses.push_back(train_step(model, optimizer, batches, {}).loss);
  for (const Parameter& parameter : model.parameters()) {
    trained.weights.push_back(parameter.value.cpu());
    trained.names.push_back(parameter.name);
  }
  return trained;
}

TEST(DeterministicGpu, TrainingTwiceGivesTheSameBits) {
  if (ops::cuda_devices() == 0) GTEST_SKIP() << (ops::cuda_built() ? "no GPU on this machine" : "a build without CUDA");
  const bool has_fp8 = ops::describe_gpu(0).major >= 9;
  struct Case {
    Architecture architecture;
    bool packed, fp8;
  };
  const ops::DeterministicScope deterministic;
  for (const auto& [architecture, packed, fp8] :
       {Case{Architecture::kNanochat2025_12, false, false}, Case{Architecture::kNanochat2025_12, true, false},
        Case{Architecture::kNanochat2026_07, false, false}, Case{Architecture::kNanochat2026_07, false, true}}) {
    if (fp8 && !has_fp8) continue;
    SCOPED_TRACE(::testing::Message() << architecture_name(architecture) << (packed ? ", packed" : "") << (fp8 ? ", fp8" : ""));
    const Trained once = train(architecture, packed, fp8), again = train(architecture, packed, fp8);
    EXPECT_LT(once.losses.back(), once.losses.front());
    EXPECT_EQ(once.losses, again.losses);
    for (std::size_t i = 0; i < once.weights.size(); ++i)
      EXPECT_TRUE(at::equal(once.weights[i], again.weights[i])) << once.names[i];
  }
}

}  // namespace
}  // namespace nanochat
