#include "model/memory.h"

#include <ATen/ops/ones.h>

#include <gtest/gtest.h>

#include "core/testing_memory.h"
#include "model/testing.h"
#include "ops/device.h"

namespace nanochat {
namespace {

TEST(MemoryEstimate, CountsWeightsGradientsAndState) {
  const GptConfig config = GptConfig::from_depth(4, 1024, 128);
  const std::int64_t parameters = config.parameter_count(), tables = 2 * 1024 * 256;
  const MemoryEstimate exact = estimate_training_memory(config, 2, 128, 4);
  EXPECT_EQ(exact.weights, 4 * parameters);
  EXPECT_EQ(exact.gradients, 4 * parameters);
  EXPECT_EQ(exact.optimizer, 4 * (parameters - tables) + 8 * tables);
  EXPECT_EQ(estimate_training_memory(config, 2, 128, 2).weights, 6 * parameters);
  EXPECT_EQ(exact.total(), exact.weights + exact.gradients + exact.optimizer + exact.activations);
}

TEST(MemoryEstimate, ActivationsAreWhatAStepTakes) {
  // The estimate in units of the peak, measured: 1.06 in float32; in bfloat16 0.93 on AVX2 and 1.14 with AMX, whose kernels keep
  // no copies in float32.
  constexpr double kLeast = 0.9, kMost = 1.2;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const GptConfig config = GptConfig::from_depth(6, 256, 512);
    Gpt model = testing::random_model(config, dtype, 1);
    model.zero_grad();
    const at::Tensor ids = testing::random_ids(16, 512, 256, 2);
    Gpt small = testing::random_model(GptConfig::from_depth(1, 256, 512), dtype, 1);
    small.zero_grad();
    small.forward_backward(ids.narrow(0, 0, 1), ids.narrow(0, 0, 1), at::ones({1, 512}));  // what libraries take at first
    const auto taken = testing::peak_memory_of([&] { model.forward_backward(ids, ids, at::ones({16, 512})); });
    if (!taken) GTEST_SKIP() << "the peak cannot be reset";
    const std::int64_t estimate = estimate_training_memory(config, 16, 512, dtype == at::kFloat ? 4 : 2).activations;
    EXPECT_GE(static_cast<double>(estimate), kLeast * static_cast<double>(*taken)) << at::toString(dtype);
    EXPECT_LE(static_cast<double>(estimate), kMost * static_cast<double>(*taken)) << at::toString(dtype);
  }
}

TEST(MemoryEstimate, LargestBatchFitsAndTheNextDoesNot) {
  const GptConfig config = GptConfig::from_depth(12, 65536, 2048);
  const std::int64_t budget = std::int64_t{20} << 30;
  const std::int64_t batch = largest_batch_that_fits(config, 2048, 2, budget);
  ASSERT_GT(batch, 0);
  EXPECT_LE(estimate_training_memory(config, batch, 2048, 2).total(), budget);
  EXPECT_GT(estimate_training_memory(config, batch + 1, 2048, 2).total(), budget);
  EXPECT_EQ(largest_batch_that_fits(config, 2048, 2, 1 << 20), 0);
}

TEST(MemoryEstimate, OfAGpuCoversWhatAStepTakes) {
  if (ops::cuda_devices() == 0) GTEST_SKIP() << "no GPU that this build can use";
  const GptConfig config = GptConfig::from_depth(8, 32768, 1024);
  Gpt model(config, at::kBFloat16, at::Device(at::kCUDA, 0));
  model.init_weights(1);
  model.zero_grad();
  const at::Tensor ids = testing::random_ids(16, 1024, 32768, 2);
  model.forward_backward(ids, ids, at::ones({16, 1024})).cpu();
  const auto taken = static_cast<double>(ops::peak_device_memory(model.device()));
  const MemoryEstimate estimate = estimate_training_memory(config, 16, 1024, 2, /*gpu=*/true);
  // The optimizer's state is not there, nor what other libraries take beside LibTorch's allocator.
  EXPECT_GT(static_cast<double>(estimate.total() - estimate.optimizer), 0.9 * taken);
  EXPECT_LT(static_cast<double>(estimate.total() - estimate.optimizer), 1.6 * taken);
}

}  // namespace
}  // namespace nanochat
