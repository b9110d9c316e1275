#include "ops/relu_squared.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/randn.h>

#include <limits>

#include <gtest/gtest.h>

#include "ops/testing.h"

namespace nanochat::ops {
namespace {

TEST(ReluSquared, ForwardAndBackwardEqualAutograd) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const std::int64_t n : {1, 17, 40000}) {
      const at::Tensor x = at::randn({n}).to(dtype), dy = at::randn({n}).to(dtype);
      const at::Tensor leaf = x.to(at::kDouble).requires_grad_(true);
      const at::Tensor expected = leaf.relu().square();
      expected.backward(dy.to(at::kDouble));
      at::Tensor y = at::empty_like(x), dx = dy.clone();
      relu_squared(x, y);
      EXPECT_LT(y.to(at::kDouble).sub(expected.detach()).abs().max().item<double>(),
                testing::tolerance(dtype) * (1e-6 + expected.max().item<double>()));
      relu_squared_backward(dx, y, dx);  // in place, as the model uses it
      EXPECT_LT(dx.to(at::kDouble).sub(leaf.grad()).abs().max().item<double>(),
                testing::tolerance(dtype) * (1e-6 + leaf.grad().abs().max().item<double>()));
      at::Tensor in_place = x.clone();
      relu_squared(in_place, in_place);
      EXPECT_TRUE(in_place.equal(y));
    }
  }
}

TEST(ReluSquared, DoesNotHideANaN) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    at::Tensor x = at::randn({40}).to(dtype), y = at::empty_like(x);
    x.narrow(0, 3, 1).fill_(std::numeric_limits<double>::quiet_NaN());
    relu_squared(x, y);
    EXPECT_EQ(at::isnan(y).sum().item<int>(), 1);
  }
}

TEST(ReluSquared, RefusesOtherSizes) {
  at::Tensor y = at::empty({3});
  EXPECT_THROW(relu_squared(at::randn({4}), y), c10::Error);
  EXPECT_THROW(relu_squared_backward(at::randn({3}), at::randn({4}), y), c10::Error);
}

}  // namespace
}  // namespace nanochat::ops
