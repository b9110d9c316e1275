#include "ops/cpu/row_products.h"

#include <ATen/Parallel.h>
#include <ATen/ops/mm.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "ops/linear.h"
#include "ops/testing.h"

namespace nanochat::ops {
namespace {

using testing::random_tensor;
using testing::relative_error;

class LinearRows : public ::testing::TestWithParam<at::ScalarType> {};

at::Tensor product(const at::Tensor& x, const at::Tensor& w) {
  at::Tensor y = at::empty({x.size(0), w.size(0)}, x.options());
  linear_rows(x, w, y);
  return y;
}

TEST_P(LinearRows, MultipliesAnyShape) {
  std::uint64_t seed = 1;
  for (const std::int64_t rows : {1, 2, 3, 4, 5, 8, 13, 70}) {
    for (const std::int64_t n : {1, 7, 16, 31, 32, 33, 96, 200}) {
      for (const std::int64_t columns : {1, 3, 4, 64, 67, 130}) {
        const at::Tensor x = random_tensor({rows, n}, GetParam(), seed++), w = random_tensor({columns, n}, GetParam(), seed++);
        const at::Tensor expected = at::mm(x.to(at::kDouble), w.to(at::kDouble).t());
        EXPECT_LE(relative_error(product(x, w), expected), testing::tolerance(GetParam()))
            << rows << " x " << n << " by " << columns;
      }
    }
  }
}

TEST_P(LinearRows, TakesRowsThatLieApart) {
  const at::Tensor x = random_tensor({6, 100}, GetParam(), 1).narrow(1, 10, 50),
                   w = random_tensor({9, 80}, GetParam(), 2).narrow(1, 3, 50);
  at::Tensor whole = at::empty({6, 30}, x.options()).fill_(7);
  at::Tensor y = whole.narrow(1, 5, 9);
  linear_rows(x, w, y);
  EXPECT_LE(relative_error(y, at::mm(x.to(at::kDouble), w.to(at::kDouble).t())), testing::tolerance(GetParam()));
  EXPECT_TRUE(whole.narrow(1, 0, 5).eq(7).all().item<bool>() && whole.narrow(1, 14, 16).eq(7).all().item<bool>());
}

// What makes the answers of the engine batch-invariant.
TEST_P(LinearRows, IsBatchInvariantBitForBit) {
  const int threads = at::get_num_threads();
  for (const std::int64_t n : {33, 256}) {
    const at::Tensor x = random_tensor({37, n}, GetParam(), 3), w = random_tensor({131, n}, GetParam(), 4);
    const at::Tensor all = product(x, w);
    for (const int some : {1, 2, 3}) {
      at::set_num_threads(some);
      for (std::int64_t first = 0; first < 37; first += 5) {
        for (const std::int64_t rows : {1, 2, 3, 4, 7}) {
          if (first + rows > 37) continue;
          EXPECT_TRUE(product(x.narrow(0, first, rows), w).equal(all.narrow(0, first, rows))) << first << " + " << rows;
        }
      }
    }
    at::set_num_threads(threads);
  }
}

TEST_P(LinearRows, RefusesShapesThatDoNotFit) {
  const at::Tensor x = random_tensor({2, 8}, GetParam(), 1), w = random_tensor({4, 9}, GetParam(), 2);
  at::Tensor y = at::empty({2, 4}, x.options());
  EXPECT_THROW(linear_rows(x, w, y), c10::Error);
}

TEST_P(LinearRows, PassesOnWhatIsNotANumber) {
  at::Tensor x = random_tensor({5, 64}, GetParam(), 1);
  x[2][40] = std::numeric_limits<float>::quiet_NaN();
  const at::Tensor y = product(x, random_tensor({6, 64}, GetParam(), 2));
  EXPECT_TRUE(at::isnan(y[2]).all().item<bool>());
  EXPECT_FALSE(testing::any_nan(y.narrow(0, 3, 2)));
}

INSTANTIATE_TEST_SUITE_P(Types, LinearRows, ::testing::Values(at::kFloat, at::kBFloat16));

TEST(Maximum, FindsTheLargestAndKeepsNan) {
  for (const std::int64_t n : {1, 5, 16, 33, 1000}) {
    at::Tensor x = random_tensor({n}, at::kFloat, static_cast<std::uint64_t>(n));
    EXPECT_EQ(cpu::maximum()(x.const_data_ptr<float>(), n), x.max().item<float>());
    x[n - 1] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_TRUE(std::isnan(cpu::maximum()(x.const_data_ptr<float>(), n)));
  }
  EXPECT_EQ(cpu::maximum()(nullptr, 0), -std::numeric_limits<float>::infinity());
}

}  // namespace
}  // namespace nanochat::ops
