#include "ops/value_embedding.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <tuple>
#include <vector>

#include "ops/reference.h"
#include "ops/testing.h"

namespace nanochat::ops {
namespace {

using testing::leaf;
using testing::random_tensor;
using testing::relative_error;
using testing::tolerance;

constexpr std::int64_t kTokens = 90, kHeads = 3, kD = 16, kWidth = 48, kChannels = 12, kVocab = 20;

// Types of the activations and of the table.
class ValueEmbedding : public ::testing::TestWithParam<std::tuple<at::ScalarType, at::ScalarType>> {
 protected:
  const at::ScalarType dtype_ = std::get<0>(GetParam());
  // Heads lie inside a fused projection.
  const at::Tensor fused_ = random_tensor({kTokens, 5, kD}, dtype_, 1);
  const at::Tensor h_ = random_tensor({kTokens, kWidth}, dtype_, 2), gate_ = random_tensor({kHeads, kChannels}, dtype_, 3, 0.3);
  const at::Tensor table_ = random_tensor({kVocab, kHeads* kD}, std::get<1>(GetParam()), 4);
  const at::Tensor ids_ = at::randint(0, kVocab, {kTokens}, at::kInt), d_ = random_tensor({kTokens, 5, kD}, dtype_, 5);
  at::Tensor heads(const at::Tensor& fused) const { return fused.narrow(1, 2, kHeads); }
};

TEST_P(ValueEmbedding, EqualsAutograd) {
  at::Tensor v = leaf(heads(fused_)), h = leaf(h_), gate = leaf(gate_), table = leaf(table_);
  const at::Tensor opened = at::matmul(h.narrow(1, 0, kChannels), gate.t()).sigmoid().mul(3.0);
  const at::Tensor expected = v + opened.unsqueeze(2) * table.index_select(0, ids_.to(at::kLong)).view({kTokens, kHeads, kD});
  expected.backward(heads(d_).to(at::kDouble));

  const at::Tensor fused = fused_.clone();
  at::Tensor g = at::empty({kTokens, kHeads});
  add_value_embedding(heads(fused), h_, gate_, table_, ids_, g);
  EXPECT_LT(relative_error(heads(fused), expected.detach()), tolerance(dtype_));
  EXPECT_LT(relative_error(g, opened.detach()), 1e-5);
  EXPECT_TRUE(at::equal(fused.narrow(1, 0, 2), fused_.narrow(1, 0, 2))) << "queries and keys are not touched";

  const at::Tensor before = random_tensor({kTokens, kWidth}, dtype_, 6);
  at::Tensor dh = before.clone(), d_gate = at::full({kHeads, kChannels}, 1.0), d_table = at::full({kVocab, kHeads * kD}, 1.0);
  add_value_embedding_backward(heads(d_), h_, gate_, table_, ids_, g, dh, d_gate, d_table);
  EXPECT_LT(relative_error(dh, h.grad().add(before.to(at::kDouble))), tolerance(dtype_));
  EXPECT_LT(relative_error(d_gate.sub(1.0), gate.grad()), 1e-5);
  EXPECT_LT(relative_error(d_table.sub(1.0), table.grad()), 1e-5);
}

TEST_P(ValueEmbedding, EqualsTheReference) {
  const at::Tensor fused = fused_.clone(), plain = fused_.clone();
  at::Tensor g = at::empty({kTokens, kHeads}), plain_g = at::empty({kTokens, kHeads});
  add_value_embedding(heads(fused), h_, gate_, table_, ids_, g);
  reference::add_value_embedding(heads(plain), h_, gate_, table_, ids_, plain_g);
  EXPECT_LT(relative_error(fused, plain), tolerance(dtype_));
  EXPECT_LT(relative_error(g, plain_g), 1e-5);
  at::Tensor dh = h_.clone(), d_gate = at::zeros({kHeads, kChannels}), d_table = at::zeros({kVocab, kHeads * kD});
  at::Tensor plain_dh = h_.clone(), plain_gate = at::zeros({kHeads, kChannels}), plain_table = at::zeros({kVocab, kHeads * kD});
  add_value_embedding_backward(heads(d_), h_, gate_, table_, ids_, g, dh, d_gate, d_table);
  reference::add_value_embedding_backward(heads(d_), h_, gate_, table_, ids_, g, plain_dh, plain_gate, plain_table);
  EXPECT_LT(relative_error(dh, plain_dh), tolerance(dtype_));
  EXPECT_LT(relative_error(d_gate, plain_gate), 1e-5);
  EXPECT_LT(relative_error(d_table, plain_table), tolerance(dtype_));
}

TEST_P(ValueEmbedding, RepeatsBitForBitWhateverTheThreads) {
  at::Tensor g = at::full({kTokens, kHeads}, 1.3);
  const int threads = at::get_num_threads();
  std::vector<at::Tensor> gates, tables;
  for (const int count : {1, 2, 3}) {
    at::set_num_threads(count);
    at::Tensor dh = h_.clone(), none;
    gates.push_back(at::zeros({kHeads, kChannels}));
    tables.push_back(at::zeros({kVocab, kHeads * kD}));
    add_value_embedding_backward(heads(d_), h_, gate_, table_, ids_, g, dh, gates.back(), tables.back());
    add_value_embedding_backward(heads(d_), h_, gate_, table_, ids_, g, dh, gates.back(), none);  // a table that is not trained
  }
  at::set_num_threads(threads);
  for (std::size_t i = 1; i < gates.size(); ++i) {
    EXPECT_TRUE(at::equal(gates[i], gates[0]));
    EXPECT_TRUE(at::equal(tables[i], tables[0]));
  }
}

INSTANTIATE_TEST_SUITE_P(Types, ValueEmbedding,
                         ::testing::Values(std::tuple(at::kFloat, at::kFloat), std::tuple(at::kBFloat16, at::kFloat),
                                           std::tuple(at::kBFloat16, at::kBFloat16)));

TEST(ValueEmbeddingEdges, RefusesWhatDoesNotFit) {
  const at::Tensor h = at::zeros({4, 16}), gate = at::zeros({2, 12}), table = at::zeros({8, 16}),
                   ids = at::zeros({4}, at::kInt);
  at::Tensor g;
  EXPECT_THROW(add_value_embedding(at::zeros({4, 2, 4}), h, gate, table, ids, g), c10::Error);
  EXPECT_THROW(add_value_embedding(at::zeros({4, 2, 8}), h, gate, table, at::full({4}, 8, at::kInt), g), c10::Error);
  EXPECT_THROW(add_value_embedding(at::zeros({4, 2, 8}), h, gate, table.to(at::kBFloat16), ids, g), c10::Error);
  EXPECT_THROW(add_value_embedding(at::zeros({3, 2, 8}), h, gate, table, ids, g), c10::Error);
}

}  // namespace
}  // namespace nanochat::ops
