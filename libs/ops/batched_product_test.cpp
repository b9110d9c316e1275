#include "ops/batched_product.h"

#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include "ops/device.h"
#include "ops/testing.h"

namespace nanochat::ops {
namespace {

using testing::random_tensor;
using testing::relative_error;

// The product in float64 of the same rounded operands.
at::Tensor exact(const at::Tensor& a, const at::Tensor& b, double alpha, const at::Tensor& addend, double beta) {
  return a.to(at::kDouble).bmm(b.to(at::kDouble)).mul(alpha).add(addend.to(at::kDouble), beta);
}

class BatchedProduct : public ::testing::TestWithParam<std::tuple<at::DeviceType, at::ScalarType>> {
 protected:
  void SetUp() override {
    if (device_ == at::kCUDA && cuda_devices() == 0) GTEST_SKIP() << "no GPU on this machine";
  }
  at::Tensor random(at::IntArrayRef sizes, std::uint64_t seed) const {
    return random_tensor(sizes, std::get<1>(GetParam()), seed).to(device_);
  }
  at::DeviceType device_ = std::get<0>(GetParam());
  // Sums in float32; the result is rounded to the element type once.
  double tolerance_ = std::get<1>(GetParam()) == at::kFloat ? 1e-5 : testing::tolerance(at::kBFloat16);
};

// Wide, tall and square; rows that 16-byte accesses do not fit, as those of the gates of value embeddings.
TEST_P(BatchedProduct, WithEitherOperandTransposed) {
  for (const auto& [m, k, n] :
       {std::tuple{64, 64, 192}, std::tuple{10, 12, 12}, std::tuple{129, 77, 33}, std::tuple{256, 128, 128}}) {
    for (const bool a_transposed : {false, true}) {
      for (const bool b_transposed : {false, true}) {
        const at::Tensor a = a_transposed ? random({3, k, m}, 1).transpose(1, 2) : random({3, m, k}, 1);
        const at::Tensor b = b_transposed ? random({3, n, k}, 2).transpose(1, 2) : random({3, k, n}, 2);
        const at::Tensor addend = random({3, m, n}, 3);
        at::Tensor y = random({3, m, n}, 4);
        batched_product(a, b, y, 0.75, addend, -1.5);
        EXPECT_LT(relative_error(y.cpu(), exact(a.cpu(), b.cpu(), 0.75, addend.cpu(), -1.5)), tolerance_)
            << m << " x " << k << " x " << n << a_transposed << b_transposed;
      }
    }
  }
}

// As an iteration of Newton and Schulz has it.
TEST_P(BatchedProduct, AddendThatIsAnOperand) {
  const at::Tensor gram = random({2, 96, 96}, 1), before = gram.clone();
  at::Tensor y = random({2, 96, 96}, 2);
  batched_product(gram, gram, y, 2.0, gram, -4.0);
  EXPECT_LT(relative_error(y.cpu(), exact(gram.cpu(), gram.cpu(), 2.0, gram.cpu(), -4.0)), tolerance_);
  EXPECT_TRUE(gram.equal(before));
}

INSTANTIATE_TEST_SUITE_P(Devices, BatchedProduct,
                         ::testing::Combine(::testing::Values(at::kCPU, at::kCUDA),
                                            ::testing::Values(at::kFloat, at::kBFloat16)));

}  // namespace
}  // namespace nanochat::ops
