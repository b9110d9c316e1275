#include "ops/cast.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <limits>

#include <gtest/gtest.h>

namespace nanochat::ops {
namespace {

TEST(CopyConverting, RoundsToNearestEvenAsLibTorch) {
  for (const std::int64_t n : {1, 15, 16, 17, 100003}) {
    const at::Tensor x = at::randn({n}).mul(100);
    at::Tensor narrow = at::empty({n}, at::kBFloat16), wide = at::empty({n}), same = at::empty({n});
    copy_converting(x, narrow);
    EXPECT_TRUE(at::equal(narrow, x.to(at::kBFloat16)));
    copy_converting(narrow, wide);
    EXPECT_TRUE(at::equal(wide, narrow.to(at::kFloat)));
    copy_converting(x, same);
    EXPECT_TRUE(at::equal(same, x));
  }
}

TEST(CopyConverting, KeepsNaNAndInfinity) {
  // 0x7fffffff is the NaN whose mantissa would carry over into a zero.
  const float full_nan = __builtin_bit_cast(float, 0x7fffffffU), negative_nan = __builtin_bit_cast(float, 0xffffffffU);
  const float inf = std::numeric_limits<float>::infinity(), largest = std::numeric_limits<float>::max();
  at::Tensor x = at::empty({6}), narrow = at::empty({6}, at::kBFloat16);
  const float values[] = {full_nan, negative_nan, std::numeric_limits<float>::quiet_NaN(), inf, -inf, largest};
  std::copy(std::begin(values), std::end(values), x.data_ptr<float>());
  copy_converting(x, narrow);
  EXPECT_EQ(at::isnan(narrow).sum().item<int>(), 3);
  EXPECT_TRUE(at::isnan(narrow.narrow(0, 0, 3)).all().item<bool>());
  EXPECT_EQ(narrow.select(0, 3).item<float>(), inf);
  EXPECT_EQ(narrow.select(0, 4).item<float>(), -inf);
  EXPECT_EQ(narrow.select(0, 5).item<float>(), inf);  // rounds up past the largest bf16
}

TEST(CopyConverting, RefusesOtherSizes) {
  at::Tensor to = at::empty({3});
  EXPECT_THROW(copy_converting(at::zeros({4}), to), c10::Error);
}

TEST(Accumulate, AddsInFloat) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    at::Tensor sum = at::randn({40, 1001});
    const at::Tensor before = sum.clone(), x = at::randn({40, 1001}).to(dtype);
    accumulate(sum, x);
    EXPECT_TRUE(at::equal(sum, before.add(x.to(at::kFloat))));
  }
  at::Tensor narrow = at::zeros({4}, at::kBFloat16), sum = at::zeros({3});
  EXPECT_THROW(accumulate(narrow, at::zeros({4})), c10::Error);
  EXPECT_THROW(accumulate(sum, at::zeros({4})), c10::Error);
}

}  // namespace
}  // namespace nanochat::ops
