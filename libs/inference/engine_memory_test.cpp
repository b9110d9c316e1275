#include "inference/engine_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/errors.h"
#include "model/gpt.h"
#include "model/testing_config.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;

constexpr std::int64_t kPlenty = std::int64_t{1} << 40;

GptConfig config() { return testing::grouped_config(300, 64); }
// Two layers of keys and values, two heads of 16 numbers, four bytes each.
constexpr std::int64_t kBytesPerPosition = std::int64_t{2} * 2 * 2 * 16 * 4;

EngineOptions options() {
  EngineOptions options;
  options.block_size = 16;
  options.max_running = 3;
  return options;
}

EngineMemory plan(const EngineOptions& options, std::int64_t limit) {
  return plan_engine_memory(config(), at::kFloat, at::kCPU, options, limit);
}

TEST(EngineMemory, CountsTheWeightsOfTheModel) {
  for (const GptConfig& shape : {config(), testing::newest_config(300, 64)}) {
    std::int64_t bytes = 0;
    const Gpt model(shape, at::kFloat, at::kCPU, Purpose::kInference);
    for (const Parameter& parameter : model.parameters()) bytes += static_cast<std::int64_t>(parameter.compute.nbytes());
    EXPECT_EQ(plan_engine_memory(shape, at::kFloat, at::kCPU, options(), kPlenty).weights, bytes);
  }
}

TEST(EngineMemory, BfloatTakesHalfAndMaybePackedCopies) {
  const EngineMemory wide = plan(options(), kPlenty);
  const EngineMemory narrow = plan_engine_memory(config(), at::kBFloat16, at::kCPU, options(), kPlenty);
  EXPECT_EQ(narrow.kv_cache, wide.kv_cache / 2);
  EXPECT_GE(narrow.weights, wide.weights / 2);
  EXPECT_LE(narrow.weights, wide.weights);
}

TEST(EngineMemory, AnFp8CacheHasTwiceAsManyBlocks) {
  EngineOptions narrow = options();
  narrow.fp8_cache = true;
  const auto plan_of = [](const EngineOptions& options, std::int64_t limit) {
    return plan_engine_memory(config(), at::kBFloat16, at::kCPU, options, limit);
  };
  EXPECT_EQ(plan_of(narrow, kPlenty).kv_cache, plan_of(options(), kPlenty).kv_cache / 2);
  EXPECT_EQ(plan_of(narrow, kPlenty).weights, plan_of(options(), kPlenty).weights);
  EngineOptions many = options(), many_narrow = narrow;
  many.max_running = many_narrow.max_running = 1000;
  const std::int64_t limit = 4 * plan_of(options(), kPlenty).weights;
  EXPECT_EQ(plan_of(many_narrow, limit).kv_blocks, 2 * plan_of(many, limit).kv_blocks);
  EXPECT_THROW(plan(narrow, kPlenty), ConfigError);  // of a model in float32
}

TEST(EngineMemory, TheCacheIsThatOfTheEngine) {
  const EngineMemory memory = plan(options(), kPlenty);
  EXPECT_EQ(memory.kv_blocks, 3 * 64 / 16);
  EXPECT_EQ(memory.kv_cache, 3 * 64 * kBytesPerPosition);
  Engine engine(std::make_unique<Gpt>(config(), at::kFloat, at::kCPU, Purpose::kInference), options());
  EXPECT_EQ(engine.stats().kv_blocks_total, memory.kv_blocks);
  EngineOptions given = options();
  given.kv_blocks = 77;
  EXPECT_EQ(plan(given, kPlenty).kv_blocks, 77);
}

TEST(EngineMemory, TheCacheIsSmallerWhereThereIsLittleRoom) {
  EngineOptions many = options();
  many.max_running = 1000;
  const std::int64_t weights = plan(options(), kPlenty).weights;
  const std::int64_t limit = 4 * (weights + 8 * 64 * kBytesPerPosition);
  EXPECT_EQ(plan(many, limit).kv_blocks, limit / 4 / (16 * kBytesPerPosition)) << "a quarter of the limit";
  EXPECT_EQ(plan(many, weights + 70 * kBytesPerPosition).kv_blocks, 4) << "what the weights leave";
}

TEST(EngineMemory, SaysWhatDoesNotFit) {
  const std::int64_t weights = plan(options(), kPlenty).weights;
  EXPECT_EQ(plan(options(), weights + 64 * kBytesPerPosition).kv_blocks, 4) << "one context";
  try {
    plan(options(), weights + 64 * kBytesPerPosition - 1);
    FAIL() << "no error";
  } catch (const OutOfMemoryError& error) {
    EXPECT_THAT(error.what(), HasSubstr("more than the limit of"));
    EXPECT_THAT(error.what(), HasSubstr("the KV cache takes 32.0 KiB"));
  }
}

}  // namespace
}  // namespace nanochat
