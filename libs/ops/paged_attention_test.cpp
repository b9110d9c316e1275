#include "ops/paged_attention.h"

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "core/random.h"
#include "ops/attention.h"
#include "ops/testing.h"

namespace nanochat::ops {
namespace {

using testing::random_tensor;
using testing::relative_error;

struct Shape {
  at::ScalarType dtype;
  std::int64_t n_head, n_kv_head, d, block_size;
};

class PagedAttention : public ::testing::TestWithParam<Shape> {
 protected:
  // Sequences of keys and values laid out in shuffled blocks, the rest of which is NaN.
  void lay_out(const std::vector<std::pair<std::int64_t, std::int64_t>>& starts_and_tokens) {
    const Shape s = GetParam();
    std::int64_t blocks = 0;
    for (const auto& [start, tokens] : starts_and_tokens) blocks += (start + tokens + s.block_size - 1) / s.block_size;
    std::vector<std::int32_t> order(static_cast<std::size_t>(blocks + 3));
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int32_t>(i);
    Rng(7).shuffle(order);
    keys_ = at::full({blocks + 3, s.n_kv_head, s.block_size, s.d}, std::numeric_limits<double>::quiet_NaN(), s.dtype);
    values_ = keys_.clone();
    std::uint64_t seed = 10;
    for (const auto& [start, tokens] : starts_and_tokens) {
      const std::int64_t end = start + tokens;
      k_.push_back(random_tensor({end, s.n_kv_head, s.d}, s.dtype, seed++));
      v_.push_back(random_tensor({end, s.n_kv_head, s.d}, s.dtype, seed++));
      q_.push_back(random_tensor({tokens, s.n_head, s.d}, s.dtype, seed++));
      PagedBatch past;
      for (std::int64_t i = 0; i < (end + s.block_size - 1) / s.block_size; ++i) {
        past.sequences.resize(1);
        past.sequences[0].blocks.push_back(order.back());
        order.pop_back();
      }
      batch_.sequences.push_back({start, tokens, past.sequences[0].blocks});
      if (start == 0) continue;
      past.sequences[0].tokens = start;
      paged_store(k_.back().narrow(0, 0, start), v_.back().narrow(0, 0, start), past, keys_, values_);
    }
    std::vector<at::Tensor> new_k, new_v;
    for (std::size_t i = 0; i < k_.size(); ++i) {
      new_k.push_back(k_[i].narrow(0, batch_.sequences[i].start, batch_.sequences[i].tokens));
      new_v.push_back(v_[i].narrow(0, batch_.sequences[i].start, batch_.sequences[i].tokens));
    }
    paged_store(join(new_k), join(new_v), batch_, keys_, values_);
  }

  static at::Tensor join(const std::vector<at::Tensor>& parts) {
    std::int64_t rows = 0;
    for (const at::Tensor& part : parts) rows += part.size(0);
    at::Tensor whole = at::empty({rows, parts[0].size(1), parts[0].size(2)}, parts[0].options());
    rows = 0;
    for (const at::Tensor& part : parts) {
      whole.narrow(0, rows, part.size(0)).copy_(part);
      rows += part.size(0);
    }
    return whole;
  }

  at::Tensor expected(const AttentionScope& scope = {}) const {
    std::vector<at::Tensor> parts;
    for (std::size_t i = 0; i < q_.size(); ++i) {
      const at::Tensor start = at::full({1}, batch_.sequences[i].start, at::kLong);
      parts.push_back(cached_attention(q_[i].unsqueeze(0).to(at::kFloat), k_[i].unsqueeze(0).to(at::kFloat),
                                       v_[i].unsqueeze(0).to(at::kFloat), start, scope)
                          .squeeze(0));
    }
    return join(parts);
  }

  at::Tensor keys_, values_;
  std::vector<at::Tensor> q_, k_, v_;
  PagedBatch batch_;
};

TEST_P(PagedAttention, MixedBatchesEqualEachSequenceByItself) {
  lay_out({{0, 1}, {40, 1}, {0, 37}, {5, 20}, {130, 1}, {15, 1}, {16, 1}, {30, 7}});
  const at::Tensor got = paged_attention(join(q_), keys_, values_, batch_);
  EXPECT_LE(relative_error(got, expected()), testing::tolerance(GetParam().dtype));
  EXPECT_LE(relative_error(paged_attention_reference(join(q_), keys_, values_, batch_), expected()),
            testing::tolerance(GetParam().dtype));
}

TEST_P(PagedAttention, WindowsEqualEachSequenceByItself) {
  lay_out({{0, 1}, {40, 1}, {0, 37}, {5, 20}, {130, 1}, {15, 1}, {16, 1}, {30, 7}});
  for (const std::int64_t window : {0, 5, 16, 200}) {
    const AttentionScope scope{.window = window, .scale = 1.44};
    const at::Tensor got = paged_attention(join(q_), keys_, values_, batch_, scope);
    EXPECT_LE(relative_error(got, expected(scope)), testing::tolerance(GetParam().dtype)) << window;
    EXPECT_LE(relative_error(paged_attention_reference(join(q_), keys_, values_, batch_, scope), expected(scope)),
              testing::tolerance(GetParam().dtype))
        << window;
  }
}

TEST_P(PagedAttention, ATokenIsTheSameBitForBitInAnyBatchAndChunk) {
  lay_out({{0, 37}, {5, 20}, {130, 1}});
  for (const AttentionScope& scope : {AttentionScope{}, AttentionScope{.window = 9}}) {
    const at::Tensor together = paged_attention(join(q_), keys_, values_, batch_, scope);
    std::int64_t row = 0;
    for (std::size_t i = 0; i < q_.size(); ++i) {
      for (std::int64_t t = 0; t < batch_.sequences[i].tokens; ++t) {
        const PagedBatch one{{{batch_.sequences[i].start + t, 1, batch_.sequences[i].blocks}}};
        EXPECT_TRUE(paged_attention(q_[i].narrow(0, t, 1), keys_, values_, one, scope).equal(together.narrow(0, row++, 1)));
      }
    }
  }
}

TEST_P(PagedAttention, RefusesAPositionWithoutABlock) {
  lay_out({{0, 5}});
  batch_.sequences[0].start = 16;
  EXPECT_THROW(paged_attention(q_[0], keys_, values_, batch_), c10::Error);
  batch_.sequences[0].start = 0;
  batch_.sequences[0].blocks[0] = 99;
  EXPECT_THROW(paged_attention(q_[0], keys_, values_, batch_), c10::Error);
}

// A cache of E4M3 has the numbers rounded, and attention is that of the rounded numbers.
TEST(PagedAttentionOfE4M3, IsThatOfRoundedKeysAndValues) {
  const PagedBatch batch{{{0, 5, {2}}, {6, 11, {0, 3}}}}, past{{{0, 6, {0}}}};
  at::Tensor keys = at::full({4, 2, 16, 64}, std::numeric_limits<double>::quiet_NaN(), at::kBFloat16).to(at::kFloat8_e4m3fn);
  at::Tensor values = keys.clone(), wide_keys = keys.to(at::kBFloat16), wide_values = values.to(at::kBFloat16);
  const auto rounded = [](const at::Tensor& x) {
    return x.to(at::kFloat).clamp(-448.0, 448.0).to(at::kFloat8_e4m3fn).to(at::kBFloat16);
  };
  for (const PagedBatch& stored : {past, batch}) {
    // Strided, as the heads of a fused projection are.
    const at::Tensor k = random_tensor({stored.tokens(), 5, 64}, at::kBFloat16, 1).narrow(1, 1, 2);
    const at::Tensor v = random_tensor({stored.tokens(), 5, 64}, at::kBFloat16, 2, 300.0).narrow(1, 3, 2);
    ASSERT_TRUE(v.abs().gt(464.0).any().item<bool>());
    paged_store(k, v, stored, keys, values);
    paged_store(rounded(k), rounded(v), stored, wide_keys, wide_values);
  }
  EXPECT_TRUE(keys.to(at::kFloat).nan_to_num(7.0).equal(wide_keys.to(at::kFloat).nan_to_num(7.0)));
  EXPECT_TRUE(values.to(at::kFloat).nan_to_num(7.0).equal(wide_values.to(at::kFloat).nan_to_num(7.0)));
  const at::Tensor q = random_tensor({16, 4, 64}, at::kBFloat16, 3);
  for (const AttentionScope& scope : {AttentionScope{}, AttentionScope{.window = 3, .scale = 1.44}}) {
    const at::Tensor expected = paged_attention(q, wide_keys, wide_values, batch, scope);
    EXPECT_TRUE(paged_attention(q, keys, values, batch, scope).equal(expected));
    EXPECT_LE(relative_error(paged_attention_reference(q, keys, values, batch, scope), expected), testing::kBfloatTolerance);
  }
}

TEST(PagedAttentionOfE4M3, RefusesOtherTypesThanBFloat16) {
  const PagedBatch batch{{{0, 5, {0}}}};
  at::Tensor keys = at::zeros({1, 2, 16, 64}, at::kByte).view(at::kFloat8_e4m3fn), values = keys.clone();
  const at::Tensor q = random_tensor({5, 2, 64}, at::kFloat, 1);
  EXPECT_THROW(paged_store(q, q, batch, keys, values), c10::Error);
  EXPECT_THROW(paged_attention(q, keys, values, batch), c10::Error);
  EXPECT_THROW(paged_attention(q.to(at::kBFloat16), keys, values.to(at::kBFloat16), batch), c10::Error);
  EXPECT_FALSE(has_fp8_cache(at::kCPU));
}

INSTANTIATE_TEST_SUITE_P(Shapes, PagedAttention,
                         ::testing::Values(Shape{at::kFloat, 4, 2, 16, 16}, Shape{at::kFloat, 2, 2, 24, 4},
                                           Shape{at::kBFloat16, 4, 2, 64, 16}, Shape{at::kBFloat16, 2, 1, 128, 8},
                                           Shape{at::kBFloat16, 2, 2, 160, 16}, Shape{at::kBFloat16, 3, 3, 24, 16}));

}  // namespace
}  // namespace nanochat::ops
