#include "ops/matrix_product.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <limits>
#include <tuple>

#include "ops/cpu/matrix_product.h"
#include "ops/testing.h"

namespace nanochat::ops {
namespace {

using testing::random_tensor;
using testing::relative_error;

// Float sums of float32 products of bf16 numbers, against sums in float64.
constexpr double kSumTolerance = 2e-6;

class MatrixProduct : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!has_product_kernels(at::empty({1, 1}, at::kBFloat16)))
      GTEST_SKIP() << "no products of bfloat16 numbers on this processor";
  }
};

// (rows, columns) whose numbers follow each other along the rows, or along the columns, within a larger matrix.
at::Tensor matrix(std::int64_t rows, std::int64_t columns, bool along_rows, std::uint64_t seed) {
  if (!along_rows) return matrix(columns, rows, true, seed).t();
  return random_tensor({rows, columns + 5}, at::kBFloat16, seed).narrow(1, 2, columns);
}

at::Tensor exact(const at::Tensor& a, const at::Tensor& b) { return at::mm(a.to(at::kDouble), b.to(at::kDouble)); }

TEST_F(MatrixProduct, MultipliesAnyShapeAndOrder) {
  std::uint64_t seed = 1;
  for (const auto& [m, n, depth] : {std::tuple{1, 1, 1},
                                    {8, 48, 32},
                                    {7, 47, 31},
                                    {9, 49, 33},
                                    {33, 8, 2},
                                    {31, 9, 64},
                                    {40, 24, 769},
                                    {70, 100, 1537},
                                    {257, 130, 65},
                                    {3, 500, 1000}}) {
    for (const bool a_along : {true, false}) {
      for (const bool b_along : {true, false}) {
        const at::Tensor a = matrix(m, depth, a_along, seed++), b = matrix(depth, n, b_along, seed++);
        const at::Tensor expected = exact(a, b);
        at::Tensor whole = at::full({m, n + 3}, 7.0, at::kBFloat16), y = whole.narrow(1, 1, n);
        product(a, PackedMatrix(b), y);
        const auto what = ::testing::Message() << m << " x " << n << ", depth " << depth << ", " << a_along << b_along;
        EXPECT_LE(relative_error(y, expected), testing::kBfloatTolerance) << what;
        EXPECT_TRUE(whole.select(1, 0).eq(7).all().item<bool>() && whole.narrow(1, n + 1, 2).eq(7).all().item<bool>()) << what;
        at::Tensor sum = random_tensor({m, n}, at::kFloat, seed++);
        const at::Tensor before = sum.to(at::kDouble);
        add_product(a, PackedMatrix(b), sum);
        EXPECT_LE(relative_error(sum, before.add(expected)), kSumTolerance) << what;
      }
    }
  }
}

TEST_F(MatrixProduct, ScalesAndAdds) {
  for (const std::int64_t depth : {64, 1600}) {
    const at::Tensor a = matrix(37, depth, true, 1), b = matrix(depth, 75, true, 2),
                     addend = random_tensor({37, 75}, at::kBFloat16, 3);
    at::Tensor y = at::empty({37, 75}, at::kBFloat16);
    product(a, PackedMatrix(b), y, 0.5, addend, -3.0);
    EXPECT_LE(relative_error(y, exact(a, b).mul(0.5).sub(addend.to(at::kDouble), 3.0)), testing::kBfloatTolerance);
  }
}

TEST_F(MatrixProduct, OfAMatrixAndItsTransposeIsSymmetric) {
  std::uint64_t seed = 1;
  for (const std::int64_t m : {1, 3, 8, 31, 64, 70, 130}) {
    for (const std::int64_t depth : {1, 32, 33, 200, 1000}) {
      const at::Tensor x = matrix(m, depth, true, seed++);
      at::Tensor y = at::empty({m, m}, at::kBFloat16), z = at::empty({m, m}, at::kBFloat16);
      symmetric_product(x, y);
      EXPECT_LE(relative_error(y, exact(x, x.t())), testing::kBfloatTolerance) << m << " x " << depth;
      EXPECT_TRUE(at::equal(y, y.t())) << m << " x " << depth;
      const double scale = 2.5 / static_cast<double>(depth);
      const at::Tensor addend = y.to(at::kDouble).div(static_cast<double>(depth)).to(at::kBFloat16);
      symmetric_product(x, z, scale, addend, -1.5);
      EXPECT_LE(relative_error(z, exact(x, x.t()).mul(scale).sub(addend.to(at::kDouble), 1.5)), testing::kBfloatTolerance)
          << m << " x " << depth;
      EXPECT_TRUE(at::equal(z, z.t())) << m << " x " << depth;
    }
  }
}

// Resumed runs equal uninterrupted ones on any number of threads, and a row does not see the others.
TEST_F(MatrixProduct, IsTheSameBitForBitOnAnyThreadsAndInAnyCompany) {
  const int threads = at::get_num_threads();
  const at::Tensor a = matrix(300, 900, true, 1), b = matrix(900, 200, false, 2);
  at::Tensor one = at::empty({300, 200}, at::kBFloat16), gram = at::empty({300, 300}, at::kBFloat16);
  at::set_num_threads(1);
  product(a, PackedMatrix(b), one);
  symmetric_product(a, gram);
  for (const int some : {2, 3, 7}) {
    at::set_num_threads(some);
    at::Tensor y = at::empty_like(one), g = at::empty_like(gram);
    product(a, PackedMatrix(b), y);
    symmetric_product(a, g);
    EXPECT_TRUE(at::equal(y, one) && at::equal(g, gram)) << some;
    at::Tensor part = at::empty({41, 200}, at::kBFloat16);
    product(a.narrow(0, 13, 41), PackedMatrix(b), part);
    EXPECT_TRUE(at::equal(part, one.narrow(0, 13, 41))) << some;
  }
  at::set_num_threads(threads);
}

TEST_F(MatrixProduct, KeepsWhatIsNotANumberInItsRow) {
  at::Tensor a = matrix(20, 50, true, 1), y = at::empty({20, 50}, at::kBFloat16);
  a[3][49] = std::numeric_limits<float>::quiet_NaN();
  product(a, PackedMatrix(matrix(50, 50, true, 2)), y);
  EXPECT_TRUE(at::isnan(y[3]).all().item<bool>());
  EXPECT_EQ(at::isnan(y).sum().item<std::int64_t>(), 50);
}

TEST_F(MatrixProduct, RefusesWhatDoesNotFit) {
  const at::Tensor a = matrix(4, 8, true, 1), b = matrix(8, 6, true, 2);
  const PackedMatrix right(b);
  EXPECT_EQ(right.depth(), 8);
  EXPECT_EQ(right.columns(), 6);
  at::Tensor y = at::empty({4, 6}, at::kBFloat16), small = at::empty({4, 5}, at::kBFloat16), single = at::empty({4, 6});
  EXPECT_THROW(product(a.narrow(1, 0, 7), right, y), c10::Error);
  EXPECT_THROW(product(a, right, small), c10::Error);
  EXPECT_THROW(product(a, right, single), c10::Error);
  EXPECT_THROW(product(a.to(at::kFloat), right, y), c10::Error);
  EXPECT_THROW(product(a, right, y, 1.0, y, 1.0), c10::Error);
  EXPECT_THROW(product(a, right, y, 1.0, small, 1.0), c10::Error);
  EXPECT_THROW(add_product(a, right, y), c10::Error);
  EXPECT_THROW(symmetric_product(a, y), c10::Error);
  EXPECT_THROW(PackedMatrix{b.to(at::kFloat)}, c10::Error);
  EXPECT_THROW(PackedMatrix{random_tensor({8, 12}, at::kBFloat16, 1).as_strided({4, 6}, {24, 2})}, c10::Error);
}

TEST(MatrixProductKernels, AreForBfloat16) {
  const at::Tensor wide = at::empty({2, 2}), narrow = at::empty({2, 2}, at::kBFloat16);
  EXPECT_FALSE(has_product_kernels(wide));
  EXPECT_FALSE(has_fastest_products(wide));
  EXPECT_LE(has_fastest_products(narrow), has_product_kernels(narrow));
  EXPECT_EQ(has_fastest_products(narrow), has_product_kernels(narrow) && !cpu::has_matrix_tiles());
}

}  // namespace
}  // namespace nanochat::ops
