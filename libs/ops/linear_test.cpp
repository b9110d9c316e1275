#include "ops/linear.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <malloc.h>

#include <gtest/gtest.h>

#include <cstdlib>

#include "core/testing_memory.h"
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

// A result in float32 would be 32 MiB.
TEST(Linear, ScratchIsWhatAProductTakes) {
  if (nanochat::testing::kFreedMemoryIsKept) GTEST_SKIP() << "memory in use cannot be measured with AddressSanitizer";
  constexpr std::int64_t kRows = 2048, kColumns = 4096, kDepth = 64, kSlack = 8 << 20;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = at::randn({kRows, kDepth}).to(dtype), w = at::randn({kColumns, kDepth}).to(dtype);
    at::Tensor y = at::zeros({kRows, kColumns}, dtype), dw = at::zeros({kRows, kColumns}), scratch = at::zeros_like(y);
    linear(x, w, y);  // what libraries take at first
    ::malloc_trim(0);
    const auto forward = nanochat::testing::peak_memory_of([&] { linear(x, w, y); });
    const at::Tensor dy = x.t().contiguous(), inputs = w.t().contiguous();
    ::malloc_trim(0);
    const auto gradient = nanochat::testing::peak_memory_of([&] { linear_backward_weight(dy, inputs, dw, scratch); });
    if (!forward || !gradient) GTEST_SKIP() << "the peak cannot be reset";
    EXPECT_LT(std::abs(*forward - linear_scratch_bytes(kRows, kColumns, dtype)), kSlack) << dtype << ": " << *forward;
    EXPECT_LT(std::abs(*gradient - weight_gradient_scratch_bytes(kRows, kColumns, dtype)), kSlack)
        << dtype << ": " << *gradient;
  }
}

}  // namespace
}  // namespace nanochat::ops
