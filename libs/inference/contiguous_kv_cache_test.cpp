#include "inference/contiguous_kv_cache.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "model/testing.h"
#include "model/testing_config.h"
#include "ops/attention.h"
#include "ops/testing.h"

namespace nanochat {
namespace {

using ops::testing::random_tensor;
using ops::testing::relative_error;

constexpr std::int64_t kHeads = 4, kKvHeads = 2, kHeadDim = 16, kLayers = 2;
// Attention over a cache sums in another order than attention over a whole row.
constexpr double kTolerance = 1e-5;

GptConfig small_config() {
  GptConfig config;
  config.n_layer = kLayers;
  config.n_head = kHeads;
  config.n_kv_head = kKvHeads;
  config.n_embd = kHeads * kHeadDim;
  config.intermediate_size = 32;
  config.vocab_size = 60;
  config.sequence_len = 300;
  return config;
}

struct Row {
  at::Tensor q, k, v;  // (1, T, heads, D)
  Row narrow(std::int64_t begin, std::int64_t tokens) const {
    return {q.narrow(1, begin, tokens), k.narrow(1, begin, tokens), v.narrow(1, begin, tokens)};
  }
};

Row random_row(std::int64_t time, std::uint64_t seed) {
  return {random_tensor({1, time, kHeads, kHeadDim}, at::kFloat, seed),
          random_tensor({1, time, kKvHeads, kHeadDim}, at::kFloat, seed + 1),
          random_tensor({1, time, kKvHeads, kHeadDim}, at::kFloat, seed + 2)};
}

Row stack(const std::vector<Row>& rows) {
  std::vector<at::Tensor> q, k, v;
  for (const Row& row : rows) {
    q.push_back(row.q);
    k.push_back(row.k);
    v.push_back(row.v);
  }
  return {at::cat(q), at::cat(k), at::cat(v)};
}

// What every layer answers; layer l gets values times (l + 1), so that layers cannot be mixed up unnoticed.
at::Tensor attend(ContiguousKvCache& cache, const Row& step) {
  std::vector<at::Tensor> answers;
  for (std::int64_t layer = 0; layer < kLayers; ++layer) {
    answers.push_back(cache.attend(layer, step.q, step.k, step.v * static_cast<double>(layer + 1)));
  }
  cache.advance(step.q.size(1));
  for (std::size_t layer = 1; layer < answers.size(); ++layer) {
    EXPECT_LT(relative_error(answers[layer], answers[0] * static_cast<double>(layer + 1)), kTolerance);
  }
  return answers[0];
}

at::Tensor whole(const Row& row) { return ops::causal_attention(row.q, row.k, row.v).out; }

TEST(ContiguousKvCache, PiecesOfARowAnswerAsTheWhole) {
  const Row row = random_row(200, 1);
  const at::Tensor expected = whole(row);
  ContiguousKvCache cache(small_config(), at::kFloat, 1, 200);
  std::int64_t begin = 0;
  for (const std::int64_t tokens : {1, 1, 40, 1, 3, 20, 1, 133}) {  // crosses several sizes of the slab
    EXPECT_EQ(cache.start().item<std::int64_t>(), begin);
    const at::Tensor answer = attend(cache, row.narrow(begin, tokens));
    EXPECT_LT(relative_error(answer, expected.narrow(1, begin, tokens)), kTolerance) << "from " << begin;
    begin += tokens;
  }
  EXPECT_EQ(begin, 200);
}

TEST(ContiguousKvCache, RowsStandAtTheirOwnLengths) {
  const std::vector<Row> rows = {random_row(20, 1), random_row(20, 11), random_row(20, 21)};
  const std::vector<std::int64_t> lengths = {3, 10, 7};
  ContiguousKvCache cache(small_config(), at::kFloat, 3, 100);
  attend(cache, stack({rows[0].narrow(0, 10), rows[1].narrow(0, 10), rows[2].narrow(0, 10)}));
  cache.set_start(lengths);  // what stands behind is forgotten
  for (std::int64_t step = 0; step < 5; ++step) {
    std::vector<Row> next;
    for (std::size_t r = 0; r < 3; ++r) next.push_back(rows[r].narrow(lengths[r] + step, 1));
    const at::Tensor answer = attend(cache, stack(next));
    for (std::size_t r = 0; r < 3; ++r) {
      const at::Tensor expected = whole(rows[r])[0].narrow(0, lengths[r] + step, 1);
      EXPECT_LT(relative_error(answer[static_cast<std::int64_t>(r)], expected), kTolerance) << "row " << r << " step " << step;
    }
  }
}

// Rows of a cache of 4 after select_rows, continued by one token each.
void expect_selected(const std::vector<std::int64_t>& selected) {
  std::vector<Row> rows;
  for (std::uint64_t r = 0; r < 4; ++r) rows.push_back(random_row(9, 10 * r + 1));
  ContiguousKvCache cache(small_config(), at::kFloat, 4, 50);
  std::vector<Row> begin;
  for (const Row& row : rows) begin.push_back(row.narrow(0, 8));
  attend(cache, stack(begin));
  cache.select_rows(selected);
  ASSERT_EQ(cache.batch(), static_cast<std::int64_t>(selected.size()));
  std::vector<Row> next;
  for (const std::int64_t r : selected) next.push_back(rows[static_cast<std::size_t>(r)].narrow(8, 1));
  const at::Tensor answer = attend(cache, stack(next));
  for (std::size_t i = 0; i < selected.size(); ++i) {
    const at::Tensor expected = whole(rows[static_cast<std::size_t>(selected[i])])[0].narrow(0, 8, 1);
    EXPECT_LT(relative_error(answer[static_cast<std::int64_t>(i)], expected), kTolerance) << "row " << i;
  }
}

TEST(ContiguousKvCache, CopiesRowsAndStaysAsItIs) {
  const std::vector<Row> rows = {random_row(20, 1), random_row(20, 11)};
  ContiguousKvCache cache(small_config(), at::kFloat, 2, 100);
  attend(cache, stack({rows[0].narrow(0, 8), rows[1].narrow(0, 8)}));
  cache.set_start({8, 5});
  const std::vector<std::int64_t> named = {1, 0, 1};
  for (int again = 0; again < 2; ++again) {
    for (const std::int64_t room : {0, 6}) {
      ContiguousKvCache copy = cache.copy_rows(named, room);
      ASSERT_EQ(copy.batch(), 3);
      const at::Tensor answer = attend(copy, stack({rows[1].narrow(5, 6), rows[0].narrow(8, 6), rows[1].narrow(5, 6)}));
      for (std::size_t i = 0; i < named.size(); ++i) {
        const Row& row = rows[static_cast<std::size_t>(named[i])];
        const at::Tensor expected = whole(row)[0].narrow(0, named[i] == 1 ? 5 : 8, 6);
        EXPECT_LT(relative_error(answer[static_cast<std::int64_t>(i)], expected), kTolerance) << "row " << i;
      }
    }
  }
  EXPECT_EQ(cache.start()[1].item<std::int64_t>(), 5);
  EXPECT_THROW(cache.copy_rows({2}, 0), c10::Error);
}

TEST(ContiguousKvCache, SelectsRowsInPlace) {
  expect_selected({0, 1, 2, 3});
  expect_selected({1, 3});
  expect_selected({3, 1});
  expect_selected({2});
}

TEST(ContiguousKvCache, SelectsRowsInAnyOrderAndMoreThanOnce) {
  expect_selected({3, 2, 1, 0});
  expect_selected({1, 0});
  expect_selected({2, 2, 2, 2, 2, 0});
  expect_selected({0, 0, 1});
}

TEST(ContiguousKvCache, AppendsRowsOfAnotherCache) {
  const std::vector<Row> rows = {random_row(100, 1), random_row(100, 11), random_row(100, 21)};
  ContiguousKvCache first(small_config(), at::kFloat, 0, 200), short_one(small_config(), at::kFloat, 2, 200),
      long_one(small_config(), at::kFloat, 1, 200);
  attend(short_one, stack({rows[0].narrow(0, 5), rows[1].narrow(0, 5)}));
  attend(long_one, rows[2].narrow(0, 90));
  first.append_rows(short_one);
  first.append_rows(long_one);
  ASSERT_EQ(first.batch(), 3);
  EXPECT_TRUE(first.start().equal(at::tensor({5, 5, 90}, at::kLong)));
  const at::Tensor answer = attend(first, stack({rows[0].narrow(5, 1), rows[1].narrow(5, 1), rows[2].narrow(90, 1)}));
  for (std::size_t r = 0; r < 3; ++r) {
    const at::Tensor expected = whole(rows[r])[0].narrow(0, r == 2 ? 90 : 5, 1);
    EXPECT_LT(relative_error(answer[static_cast<std::int64_t>(r)], expected), kTolerance) << "row " << r;
  }
}

TEST(ContiguousKvCache, AnswersAWholeModelAsWithoutACache) {
  for (const std::int64_t kv_heads : {4, 2, 1}) {
    GptConfig config = small_config();
    config.n_kv_head = kv_heads;
    Gpt model = testing::random_model(config, at::kFloat, 5);
    const at::Tensor ids = testing::random_ids(2, 12, config.vocab_size, 6);
    const at::Tensor expected = model.forward(ids);
    ContiguousKvCache cache(config, at::kFloat, 2, 40);
    const at::Tensor prefill = model.logits(model.forward_states(ids.narrow(1, 0, 7).contiguous(), cache))
                                   .view({ids.size(0), 7, -1});
    EXPECT_LT(relative_error(prefill, expected.narrow(1, 0, 7)), kTolerance);
    for (std::int64_t t = 7; t < 12; ++t) {
      const at::Tensor logits = model.forward_cache(ids.narrow(1, t, 1).contiguous(), cache);
      EXPECT_LT(relative_error(logits, expected.select(1, t)), kTolerance) << "position " << t;
    }
  }
}

TEST(ContiguousKvCache, RefusesWhatDoesNotFit) {
  const Row row = random_row(20, 1);
  ContiguousKvCache cache(small_config(), at::kFloat, 1, 10);
  EXPECT_EQ(cache.capacity(), 10);
  attend(cache, row.narrow(0, 10));
  EXPECT_THROW(cache.attend(0, row.q.narrow(1, 10, 1), row.k.narrow(1, 10, 1), row.v.narrow(1, 10, 1)), c10::Error);
  cache.set_start({0});
  EXPECT_THROW(cache.attend(kLayers, row.q, row.k, row.v), c10::Error);
  const Row two = stack({row, row});
  EXPECT_THROW(cache.attend(0, two.q, two.k, two.v), c10::Error);
  EXPECT_THROW(cache.attend(0, row.q, row.k.to(at::kBFloat16), row.v.to(at::kBFloat16)), c10::Error);
  EXPECT_THROW(cache.set_start({0, 0}), c10::Error);
  EXPECT_THROW(cache.set_start({11}), c10::Error);
  EXPECT_THROW(cache.select_rows({1}), c10::Error);
  ContiguousKvCache other(small_config(), at::kBFloat16, 1, 10);
  EXPECT_THROW(cache.append_rows(other), c10::Error);
  EXPECT_THROW(ContiguousKvCache(small_config(), at::kFloat, 1, 0), c10::Error);
}

at::Tensor ids_of(const std::vector<std::vector<std::int32_t>>& rows) {
  const at::Tensor ids = at::empty({static_cast<std::int64_t>(rows.size()), static_cast<std::int64_t>(rows[0].size())},
                                   at::kInt);
  std::int32_t* to = ids.data_ptr<std::int32_t>();
  for (const auto& row : rows) to = std::copy(row.begin(), row.end(), to);
  return ids;
}

TEST(ContiguousKvCache, RemembersTheTokenBeforeEachThroughEveryChange) {
  GptConfig config = testing::newest_config(60, 300);
  ContiguousKvCache cache(config, at::kFloat, 2, 300);
  EXPECT_TRUE(cache.tokens_before(ids_of({{1, 2, 3}, {4, 5, 6}})).equal(ids_of({{-1, 1, 2}, {-1, 4, 5}})));
  cache.advance(3);
  EXPECT_TRUE(cache.tokens_before(ids_of({{7}, {8}})).equal(ids_of({{3}, {6}})));
  cache.set_start({1, 3});  // the first row was padded
  EXPECT_TRUE(cache.tokens_before(ids_of({{9, 10}, {11, 12}})).equal(ids_of({{1, 9}, {6, 11}})));
  cache.advance(2);
  cache.select_rows({1, 0, 1});
  EXPECT_TRUE(cache.tokens_before(ids_of({{0}, {0}, {0}})).equal(ids_of({{12}, {10}, {12}})));
  ContiguousKvCache copy = cache.copy_rows({1}, 10);
  EXPECT_TRUE(copy.tokens_before(ids_of({{0}})).equal(ids_of({{10}})));
  copy.append_rows(cache);
  EXPECT_TRUE(copy.tokens_before(ids_of({{0}, {0}, {0}, {0}})).equal(ids_of({{10}, {12}, {10}, {12}})));
}

// Rows of the newest architecture by pieces, past its short window and past its context, against a whole pass.
TEST(ContiguousKvCache, PiecesOfTheNewestArchitectureEqualAWholePass) {
  const GptConfig config = testing::newest_config(60, 200);
  Gpt model = testing::random_model(config, at::kFloat, 3);
  const at::Tensor ids = testing::random_ids(2, 260, 60, 4), expected = model.forward(ids);
  ContiguousKvCache cache(config, at::kFloat, 2, 260);
  std::int64_t begin = 0;
  for (const std::int64_t tokens : {1, 140, 30, 1, 1, 60, 27}) {
    const at::Tensor logits = model.forward_cache(ids.narrow(1, begin, tokens).contiguous(), cache);
    begin += tokens;
    EXPECT_LT(relative_error(logits, expected.select(1, begin - 1)), 2e-5) << begin;
  }
  EXPECT_EQ(begin, 260);
}

}  // namespace
}  // namespace nanochat
