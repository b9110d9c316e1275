#include "ops/linear.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>

#include <gtest/gtest.h>

#include "ops/testing.h"

namespace nanochat::ops {
namespace {

TEST(Linear, ProductAndGradientsAreThoseOfTheLayer) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = at::randn({33, 20}).to(dtype), w = at::randn({12, 20}).to(dtype), dy = at::randn({33, 12}).to(dtype);
    const at::Tensor x64 = x.to(at::kDouble), w64 = w.to(at::kDouble), dy64 = dy.to(at::kDouble);
    at::Tensor y = at::empty({33, 12}, dtype), dx = at::empty({33, 20}, dtype), scratch = at::empty({12, 20}, dtype);
    linear(x, w, y);
    EXPECT_LT(testing::relative_error(y, x64.mm(w64.t())), testing::tolerance(dtype));
    linear_backward_input(dy, w, dx);
    EXPECT_LT(testing::relative_error(dx, dy64.mm(w64)), testing::tolerance(dtype));
    const at::Tensor before = at::randn({12, 20});
    at::Tensor dw = before.clone();
    linear_backward_weight(dy, x, dw, scratch);
    EXPECT_LT(testing::relative_error(dw, dy64.t().mm(x64).add(before)), testing::tolerance(dtype));
  }
}

}  // namespace
}  // namespace nanochat::ops
