// The formulas of docs/scaling.md against counts by hand. train_step_ranks_test.cpp compares them with what communicators count.
#include "optim/rank_plan.h"

#include <gtest/gtest.h>

namespace nanochat {
namespace {

const GptConfig kD20 = GptConfig::from_depth(20, 65536, 2048);
constexpr double kParameters = 560'988'160, kTable = 65536.0 * 1280;

TEST(RankPlan, BytesAreThoseOfTheDocument) {
  for (const int ranks : {2, 8, 64}) {
    const double share = (ranks - 1.0) / ranks;
    const StepTraffic traffic = step_traffic(kD20, ranks, 2);
    constexpr double kRounding = 1000;  // each tensor's share is a whole number of bytes
    EXPECT_NEAR(static_cast<double>(traffic.gradients), share * kParameters * 4, kRounding);
    EXPECT_NEAR(static_cast<double>(traffic.weights), share * kParameters * 2, kRounding);
    EXPECT_NEAR(static_cast<double>(traffic.last_gradients), share * kTable * 4, kRounding);
    EXPECT_NEAR(static_cast<double>(traffic.first_weights), share * kTable * 2, kRounding);
    EXPECT_NEAR(static_cast<double>(step_traffic(kD20, ranks, 2, 2).gradients), share * kParameters * 2, kRounding);
    EXPECT_NEAR(static_cast<double>(step_traffic(kD20, ranks, 4).weights), share * kParameters * 4, kRounding);
    EXPECT_EQ(traffic.gradient_calls, 22);
    EXPECT_EQ(traffic.weight_calls, 22);
  }
  EXPECT_EQ(step_traffic(kD20, 1, 2).total(), 0) << "alone, nothing is sent";
}

// Scalars and value embeddings are computed with in float32, and so sent in it.
TEST(RankPlan, BytesOfTheNewestArchitecture) {
  const GptConfig config = GptConfig::from_depth(4, 512, 64, Architecture::kNanochat2026_07);
  std::int64_t wide = 0, narrow = 0;
  for_each_tensor(config, [&](const TensorSpec& tensor) { (computes_in_float32(tensor) ? wide : narrow) += tensor.numel(); });
  EXPECT_EQ(wide, 2 * 512 * config.n_kv_head * config.head_dim() + 4 + 4 + 1 + 1);
  EXPECT_NEAR(static_cast<double>(step_traffic(config, 2, 2).weights), 0.5 * static_cast<double>(4 * wide + 2 * narrow), 100);
}

TEST(RankPlan, MemoryOfARankFallsByTheOthersState) {
  const TrainingShape shape{.device_batch_size = 16, .sequence_len = 2048, .compute_bytes = 2, .gpu = true};
  const MemoryEstimate alone = estimate_training_memory(kD20, shape);
  EXPECT_EQ(estimate_rank_memory(kD20, shape, 1).total(), alone.total());
  constexpr double kUneven = 1.1;  // matrices are owned whole
  for (const int ranks : {2, 4, 8}) {
    const MemoryEstimate rank = estimate_rank_memory(kD20, shape, ranks);
    EXPECT_EQ(rank.weights, alone.weights);
    EXPECT_EQ(rank.gradients, alone.gradients);
    EXPECT_EQ(rank.activations, alone.activations);
    EXPECT_GE(rank.optimizer, alone.optimizer / ranks);
    EXPECT_LE(static_cast<double>(rank.optimizer), kUneven * static_cast<double>(alone.optimizer) / ranks);
  }
}

TEST(RankPlan, ShardedWeightsAreSentInEachPass) {
  constexpr double kLayer = 12.0 * 1280 * 1280, kRounding = 1000;  // each tensor's share is rounded
  for (const int ranks : {2, 8}) {
    const double share = (ranks - 1.0) / ranks;
    // One micro-batch: every layer for the forward pass, and all but the last two, which are still there, for the backward pass.
    const StepTraffic one = sharded_step_traffic(kD20, ranks, 1, 2);
    EXPECT_NEAR(static_cast<double>(one.gradients), share * kParameters * 4, kRounding);
    EXPECT_NEAR(static_cast<double>(one.weights), share * 2 * (2 * kTable + 38 * kLayer), kRounding);
    EXPECT_NEAR(static_cast<double>(one.backward_weights), share * 2 * 18 * kLayer, kRounding);
    EXPECT_EQ(one.gradient_calls, 22);
    EXPECT_EQ(one.weight_calls, 40);
    // Eight: from the second on, the forward pass has the first two layers from the backward pass before it.
    const StepTraffic eight = sharded_step_traffic(kD20, ranks, 8, 2);
    EXPECT_NEAR(static_cast<double>(eight.gradients), 8 * share * kParameters * 4, 8 * kRounding);
    EXPECT_NEAR(static_cast<double>(eight.weights), share * 2 * (8 * 2 * kTable + (8 * 18 + 2 + 8 * 18) * kLayer),
                8 * kRounding);
    EXPECT_NEAR(static_cast<double>(eight.last_gradients), share * 4 * kTable, kRounding) << "of one pass";
  }
  EXPECT_EQ(sharded_step_traffic(kD20, 1, 8, 2).total(), 0) << "alone, nothing is sent";
}

TEST(RankPlan, ShardedWeightsTakeTheirShareOfMemoryAndBuffers) {
  const TrainingShape shape{
      .device_batch_size = 16, .sequence_len = 2048, .compute_bytes = 2, .gpu = true, .shard_weights = true};
  const MemoryEstimate alone = estimate_training_memory(kD20, shape);
  EXPECT_EQ(estimate_rank_memory(kD20, shape, 1).total(), alone.total());
  constexpr double kLayer = 12.0 * 1280 * 1280, kBuffers = 2 * kLayer + kTable;
  constexpr double kUneven = 1.1;  // matrices are owned whole
  for (const int ranks : {2, 4, 8}) {
    const MemoryEstimate rank = estimate_rank_memory(kD20, shape, ranks);
    EXPECT_GE(static_cast<double>(rank.weights), kParameters * 6 / ranks + 2 * kBuffers - 1);
    EXPECT_LE(static_cast<double>(rank.weights), kUneven * kParameters * 6 / ranks + 2 * kBuffers);
    EXPECT_GE(static_cast<double>(rank.gradients), kParameters * 4 / ranks + 4 * kBuffers - 1);
    EXPECT_LE(static_cast<double>(rank.gradients), kUneven * kParameters * 4 / ranks + 4 * kBuffers);
    EXPECT_EQ(rank.activations, alone.activations);
  }
}

TEST(RankPlan, ShardedWeightsGoBeneathEveryPass) {
  constexpr double kTokens = 8 * 16 * 2048;
  TrainingShape shape{.device_batch_size = 16, .sequence_len = 2048, .compute_bytes = 2, .gpu = true, .shard_weights = true};
  const Cluster fast{.ranks = 2, .link_bytes_per_second = 300e9, .hop_seconds = 0.0, .flops_per_second = 5.7e14};
  const StepTime time = estimate_step_time(kD20, shape, fast, kTokens);
  // Of each of eight passes, the embedding's alone.
  EXPECT_NEAR(time.exposed_weights, 8 * 0.5 * 2 * kTable / 300e9, 1e-9);
  EXPECT_NEAR(time.exposed_gradients, 8 * 0.5 * 4 * kTable / 300e9, 1e-9);
  // On a link that is too slow, what the passes do not hide.
  Cluster slow = fast;
  slow.link_bytes_per_second = 1e9;
  const StepTime waiting = estimate_step_time(kD20, shape, slow, kTokens);
  EXPECT_NEAR(waiting.total(), waiting.communication(), 1e-9 * waiting.total()) << "computing goes on beneath communication";
  shape.shard_weights = false;
  EXPECT_LT(estimate_step_time(kD20, shape, slow, kTokens).total(), 0.3 * waiting.total());
}

TEST(RankPlan, RecomputationRunsMostOfTheForwardPassAgain) {
  // Of a layer: four square matrices of attention and the first of the MLP's two, each four times as large; attention itself.
  const double width = 1280, layers = 19;
  EXPECT_DOUBLE_EQ(recompute_flops_per_token(kD20), layers * (2 * 8 * width * width + 4 * width * 2048));
  EXPECT_LT(recompute_flops_per_token(kD20), 0.25 * kD20.flops_per_token());
}

TEST(RankPlan, TimeIsComputingAndWhatIsNotBeneathIt) {
  const TrainingShape shape{.device_batch_size = 16, .sequence_len = 2048, .compute_bytes = 2, .gpu = true};
  Cluster cluster{.ranks = 2, .link_bytes_per_second = 300e9, .hop_seconds = 0, .flops_per_second = 5.7e14};
  constexpr double kMicroBatch = 16 * 2048;
  const double pass = kMicroBatch * kD20.flops_per_token() / 5.7e14;
  const StepTime one = estimate_step_time(kD20, shape, cluster, kMicroBatch),
                 eight = estimate_step_time(kD20, shape, cluster, 8 * kMicroBatch);
  EXPECT_NEAR(one.compute, pass, 1e-9);
  EXPECT_NEAR(eight.compute, 8 * pass, 1e-9);
  // 0.5 x N x 4 bytes and 0.5 x N x 2, hidden but for the embedding's.
  EXPECT_NEAR(one.gradients, kParameters * 2 / 300e9, 1e-8);
  EXPECT_NEAR(one.exposed_gradients, kTable * 2 / 300e9, 1e-8);
  EXPECT_NEAR(one.weights, kParameters / 300e9, 1e-8);
  EXPECT_NEAR(one.exposed_weights, kTable / 300e9, 1e-8);
  EXPECT_EQ(eight.communication(), one.communication()) << "once a step";
  EXPECT_NEAR(one.total(), pass + one.exposed_gradients + one.exposed_weights, 1e-12);

  // Slower than the passes: what lasts longer is waited for.
  cluster.link_bytes_per_second = 1e9;
  const StepTime slow = estimate_step_time(kD20, shape, cluster, kMicroBatch);
  EXPECT_NEAR(slow.exposed_gradients, kParameters * 2 / 1e9 - pass * 2 / 3, 1e-6);
  EXPECT_NEAR(slow.exposed_weights, kParameters / 1e9 - pass / 3, 1e-6);

  // Beyond one machine the slower of link and network decides, and a ring has as many hops as others.
  cluster.link_bytes_per_second = 300e9;
  cluster.ranks = 16;
  EXPECT_EQ(cluster.nodes(), 2);
  EXPECT_EQ(cluster.ring_bytes_per_second(), 50e9);
  cluster.hop_seconds = 1e-5;
  const StepTime hops = estimate_step_time(kD20, shape, cluster, kMicroBatch);
  EXPECT_NEAR(hops.weights, 15.0 / 16 * kParameters * 2 / 50e9 + 22 * 15 * 1e-5, 1e-7);

  // Alone there is nothing to send, and at an unknown rate nothing to say of computing.
  EXPECT_EQ(estimate_step_time(kD20, shape, {.flops_per_second = 5.7e14}, kMicroBatch).total(), one.compute);
  EXPECT_EQ(estimate_step_time(kD20, shape, {}, kMicroBatch).total(), 0.0);
}

}  // namespace
}  // namespace nanochat
