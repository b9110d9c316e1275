#include "training/trainer/bits_per_byte.h"

#include <ATen/ops/full.h>

#include <cmath>
#include <numbers>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/errors.h"
#include "data/batches/loader.h"
#include "model/testing.h"
#include "training/trainer/batch_tensors.h"

namespace nanochat {
namespace {

class FixedLoader : public Loader {
 public:
  explicit FixedLoader(std::vector<TokenBatch> batches) : batches_(std::move(batches)) {}
  bool next(TokenBatch& batch) override {
    if (next_ == batches_.size()) return false;
    batch = batches_[next_++];
    return true;
  }
  nlohmann::json position() const override { return next_; }
  std::int64_t epoch() const override { return 0; }

 private:
  std::vector<TokenBatch> batches_;
  std::size_t next_ = 0;
};

TEST(BitsPerByte, CountsBytesOfSupervisedOrdinaryTokens) {
  // Token 0 is special, 1 stands for one byte, 2 for three.
  const std::vector<std::int32_t> bytes = {0, 1, 3};
  const TokenBatch batch{1, 4, {0, 0, 0, 0}, {0, 1, 2, -1}, {}};
  BitsPerByte bpb;
  EXPECT_TRUE(std::isinf(bpb.value()));
  bpb.add(at::full({1, 4}, 2.0, at::kFloat), batch, bytes);
  EXPECT_EQ(bpb.bytes, 4);
  EXPECT_EQ(bpb.tokens, 2);
  EXPECT_DOUBLE_EQ(bpb.nats, 4.0);
  EXPECT_DOUBLE_EQ(bpb.value(), 1.0 / std::numbers::ln2);
}

TEST(EvaluateBitsPerByte, OfAUniformModelIsTheLogarithmOfTheVocabulary) {
  const GptConfig config = GptConfig::from_depth(1, 64, 8);
  Gpt model(config, at::kFloat);
  model.init_weights(1);  // zero head: every token equally likely
  const TokenBatch batch{2, 4, {1, 2, 3, 4, 5, 6, 7, 8}, {2, 3, 4, 5, 6, 7, 8, 9}, {}};
  const std::vector<std::int32_t> bytes(64, 2);
  FixedLoader loader({batch, batch, batch});
  const BitsPerByte two = evaluate_bits_per_byte(model, loader, 2, bytes);
  EXPECT_EQ(two.tokens, 16);
  EXPECT_NEAR(two.value(), 6.0 / 2.0, 1e-6);  // log2(64) bits over 2 bytes
  EXPECT_EQ(evaluate_bits_per_byte(model, loader, 100, bytes).tokens, 8);  // what is left
  EXPECT_THROW(evaluate_bits_per_byte(model, loader, 100, bytes), DataError);
}

TEST(BatchViews, ShareTheBatchsMemory) {
  const TokenBatch batch{2, 2, {1, 2, 3, 4}, {5, 6, 7, 8}, {}};
  EXPECT_EQ(inputs_of(batch).const_data_ptr<std::int32_t>(), batch.inputs.data());
  EXPECT_EQ(targets_of(batch).select(0, 1).select(0, 0).item<int>(), 7);
  const TokenBatch broken{2, 3, {1, 2, 3, 4}, {5, 6, 7, 8}, {}};
  EXPECT_THROW(inputs_of(broken), c10::Error);
}

}  // namespace
}  // namespace nanochat
