#include "ops/embedding.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <gtest/gtest.h>

#include "ops/testing.h"

namespace nanochat::ops {
namespace {

TEST(Embedding, GathersRowsAndScattersGradients) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor table = at::randn({50, 24}).to(dtype), ids = at::randint(0, 50, {200}, at::kInt);
    at::Tensor y = at::empty({200, 24}, dtype);
    embedding(table, ids, y);
    EXPECT_TRUE(at::equal(y, at::index_select(table, 0, ids)));

    const at::Tensor dy = at::randn({200, 24}).to(dtype), before = at::randn({50, 24});
    at::Tensor dtable = before.clone();
    embedding_backward(dy, ids, dtable, order_tokens(ids));  // on a CPU, an empty one
    const at::Tensor expected = before.to(at::kDouble).index_add(0, ids.to(at::kLong), dy.to(at::kDouble));
    EXPECT_LT(testing::relative_error(dtable, expected), testing::kFloatTolerance);
  }
}

TEST(Embedding, RefusesIdsOutsideTheTable) {
  at::Tensor y = at::empty({3, 8});
  EXPECT_THROW(embedding(at::zeros({5, 8}), at::full({3}, 5, at::kInt), y), c10::Error);
  EXPECT_THROW(embedding(at::zeros({5, 8}), at::full({3}, -1, at::kInt), y), c10::Error);
  EXPECT_THROW(embedding(at::zeros({5, 8}), at::zeros({3}, at::kLong), y), c10::Error);
  EXPECT_THROW(embedding(at::zeros({5, 8}), at::zeros({4}, at::kInt), y), c10::Error);
  at::Tensor dtable = at::zeros({5, 8});
  EXPECT_THROW(embedding_backward(y, at::zeros({4}, at::kInt), dtable), c10::Error);
}

}  // namespace
}  // namespace nanochat::ops
