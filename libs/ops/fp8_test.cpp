#include "ops/fp8.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <limits>

#include "ops/device.h"
#include "ops/relu_squared.h"
#include "ops/testing.h"

namespace nanochat::ops {
namespace {

using testing::random_tensor;
using testing::relative_error;

at::Tensor bytes(const at::Tensor& bits) { return bits.cpu().view(at::kByte); }

// float32, of the 8 bits and the scale.
at::Tensor numbers(const Fp8Matrix& x) { return x.rows.cpu().to(at::kFloat).mul(x.scale.cpu()); }

// How far the nearest number of a format may be from a number that it has no smaller exponent for: half of its last bit.
double half_of_last_bit(Fp8Format format) { return format == Fp8Format::kE4M3 ? 1.0 / 16 : 1.0 / 8; }

TEST(Fp8, RoundsToTheNearestNumberOfTheFormat) {
  for (const Fp8Format format : {Fp8Format::kE4M3, Fp8Format::kE5M2}) {
    const at::Tensor x = random_tensor({48, 32}, at::kBFloat16, 1);
    const Fp8Matrix narrow = to_fp8(x, largest_magnitude(x), format, kFp8BothOrders);
    EXPECT_TRUE(bytes(narrow.columns).equal(bytes(narrow.rows).t().contiguous()));
    const at::Tensor error = numbers(narrow).sub(x.to(at::kFloat)).abs();
    // Numbers below the smallest exponent, 2^-6 or 2^-14 of the format, are multiples of its smallest number.
    const double smallest = format == Fp8Format::kE4M3 ? 0x1p-10 : 0x1p-17;
    const at::Tensor allowed =
        x.to(at::kFloat).abs().mul(half_of_last_bit(format)).clamp_min(smallest * narrow.scale.item<double>());
    EXPECT_LE(error.sub(allowed).max().item<double>(), 1e-6);
    // The largest number becomes the largest of the format.
    EXPECT_NEAR(numbers(narrow).abs().max().item<double>() / x.abs().max().item<double>(), 1.0, 1e-6);
  }
}

TEST(Fp8, ZerosNumbersAboveTheBoundAndNaN) {
  const at::Tensor zeros = at::zeros({16, 16}, at::kBFloat16);
  EXPECT_EQ(numbers(to_fp8(zeros, largest_magnitude(zeros), Fp8Format::kE4M3, kFp8BothOrders)).abs().max().item<double>(), 0.0);
  const at::Tensor x = random_tensor({16, 16}, at::kBFloat16, 1), bound = at::full({1}, 0.5);
  EXPECT_NEAR(numbers(to_fp8(x, bound, Fp8Format::kE4M3, kFp8BothOrders)).abs().max().item<double>(), 0.5, 1e-6);
  x[3][5] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(testing::any_nan(numbers(to_fp8(x, bound, Fp8Format::kE5M2, kFp8BothOrders))));
  EXPECT_TRUE(testing::any_nan(largest_magnitude(x)));
}

TEST(Fp8, RefusesWhatTensorCoresDoNotTake) {
  EXPECT_FALSE(fits_fp8(24, 32));
  const at::Tensor x = random_tensor({24, 32}, at::kBFloat16, 1);
  EXPECT_THROW(to_fp8(x, largest_magnitude(x), Fp8Format::kE4M3, kFp8BothOrders), c10::Error);
}

struct Layer {
  at::Tensor x = random_tensor({96, 160}, at::kBFloat16, 1), w = random_tensor({224, 160}, at::kBFloat16, 2, 0.05),
             dy = random_tensor({96, 224}, at::kBFloat16, 3, 1e-4);

  struct Narrow {
    Fp8Matrix x, w, dy;
  };
  Narrow narrow(at::DeviceType device) const {
    const auto of = [&](const at::Tensor& matrix, Fp8Format format) {
      const at::Tensor there = matrix.to(device);
      return to_fp8(there, largest_magnitude(there), format, kFp8BothOrders);
    };
    return {of(x, Fp8Format::kE4M3), of(w, Fp8Format::kE4M3), of(dy, Fp8Format::kE5M2)};
  }
};

struct Results {
  at::Tensor y, dx, dw;
};
Results products(const Layer& layer, at::DeviceType device) {
  const Layer::Narrow narrow = layer.narrow(device);
  Results results = {at::empty({96, 224}, at::kBFloat16).to(device), at::empty({96, 160}, at::kBFloat16).to(device),
                     at::full({224, 160}, 1e-4).to(device)};
  fp8_linear(narrow.x, narrow.w, results.y);
  fp8_linear_backward_input(narrow.dy, narrow.w, results.dx);
  fp8_linear_backward_weight(narrow.dy, narrow.x, results.dw);
  return {results.y.cpu(), results.dx.cpu(), results.dw.cpu()};
}

// |a - b| / |b|, Frobenius norms in float64.
double norm_error(const at::Tensor& a, const at::Tensor& b) {
  return a.to(at::kDouble).sub(b).norm().item<double>() / b.norm().item<double>();
}

// A number is off by 2.6 % of itself in E4M3 and 5.2 % in E5M2, as root mean squares; the errors of a product's two factors add
// up like independent ones, and so do those of a sum: 3.7 % of values and 5.8 % of gradients, and a tenth more.
constexpr double kForwardError = 0.041, kGradientError = 0.064;

TEST(Fp8, ProductsAreNearThoseOfTheRoundedNumbers) {
  const Layer layer;
  const Results results = products(layer, at::kCPU);
  const auto exact = [](const at::Tensor& x) { return x.to(at::kDouble); };
  EXPECT_LT(norm_error(results.y, exact(layer.x).mm(exact(layer.w).t())), kForwardError);
  EXPECT_LT(norm_error(results.dx, exact(layer.dy).mm(exact(layer.w))), kGradientError);
  EXPECT_LT(norm_error(results.dw.to(at::kDouble).sub(1e-4), exact(layer.dy).t().mm(exact(layer.x))), kGradientError);
}

// Against the activation that is stored in bfloat16 first.
TEST(Fp8, ActivationIsReluSquared) {
  const at::Tensor z = random_tensor({32, 48}, at::kBFloat16, 1), dy = random_tensor({32, 48}, at::kBFloat16, 2);
  at::Tensor y = at::empty_like(z), dz = at::empty_like(z);
  relu_squared(z, y);
  relu_squared_backward(dy, y, dz);
  const at::Tensor largest = largest_relu_squared(z);
  EXPECT_NEAR(largest.item<double>(), y.max().item<double>(), y.max().item<double>() / 256);
  // A number may be rounded twice, and then the other way.
  EXPECT_LT(norm_error(numbers(relu_squared_to_fp8(z, largest)), y.to(at::kDouble)), kForwardError);
  EXPECT_LT(norm_error(numbers(relu_squared_backward_to_fp8(dy, z, largest_magnitude(dz))), dz.to(at::kDouble)),
            kGradientError);
}

class Fp8OnAGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda_devices() == 0) GTEST_SKIP() << "no GPU on this machine";
    if (!has_fp8(at::Device(at::kCUDA, 0))) GTEST_SKIP() << "this GPU has no 8-bit tensor cores that are used";
  }
};

// Whole tiles of the kernel, parts of them, and a single one; the same bits as on a CPU.
TEST_F(Fp8OnAGpu, RoundsAsOnACpu) {
  for (const auto& [rows, columns] : {std::pair{256, 384}, std::pair{16, 16}, std::pair{400, 208}, std::pair{128, 1040}}) {
    for (const Fp8Format format : {Fp8Format::kE4M3, Fp8Format::kE5M2}) {
      at::Tensor x = random_tensor({rows, columns}, at::kBFloat16, 1, 3.0);
      x[rows / 2][columns / 2] = -40.0;
      const at::Tensor largest = largest_magnitude(x), gpu_x = x.to(at::kCUDA);
      EXPECT_EQ(largest_magnitude(gpu_x).item<float>(), largest.item<float>());
      for (const Fp8Orders wanted : {kFp8BothOrders, Fp8Orders{.rows = true}, Fp8Orders{.columns = true}}) {
        const Fp8Matrix expected = to_fp8(x, largest, format, wanted),
                        found = to_fp8(gpu_x, largest.to(at::kCUDA), format, wanted);
        EXPECT_EQ(found.scale.item<float>(), expected.scale.item<float>());
        EXPECT_EQ(found.rows.defined(), wanted.rows);
        EXPECT_EQ(found.columns.defined(), wanted.columns);
        EXPECT_TRUE(!wanted.rows || bytes(found.rows).equal(bytes(expected.rows))) << rows << " x " << columns;
        EXPECT_TRUE(!wanted.columns || bytes(found.columns).equal(bytes(expected.columns))) << rows << " x " << columns;
      }
    }
  }
}

TEST_F(Fp8OnAGpu, ProductsAreThoseOfTheCpu) {
  const Layer layer;
  const Results expected = products(layer, at::kCPU), found = products(layer, at::kCUDA);
  // Of sums whose numbers are the same: rounded to bfloat16 once, and with fast accumulation to about 14 bits many times.
  constexpr double kFastAccumulation = 1.0 / 64, kAccumulation = 1.0 / 128;
  EXPECT_LT(relative_error(found.y, expected.y), kFastAccumulation);
  EXPECT_LT(relative_error(found.dx, expected.dx), kAccumulation);
  EXPECT_LT(relative_error(found.dw, expected.dw), 1e-3);
}

TEST_F(Fp8OnAGpu, LargestNumbersAndNorms) {
  for (const auto& [rows, columns] :
       {std::pair{3000, 1040}, std::pair{16, 16}}) {  // more than a pass of all blocks; part of one
    const at::Tensor x = random_tensor({rows, columns}, at::kBFloat16, 1);
    EXPECT_EQ(largest_magnitude(x.to(at::kCUDA)).item<float>(), largest_magnitude(x).item<float>());
    EXPECT_EQ(largest_relu_squared(x.to(at::kCUDA)).item<float>(), largest_relu_squared(x).item<float>());
    const double norm = largest_row_norm(x).item<double>();
    EXPECT_NEAR(largest_row_norm(x.to(at::kCUDA)).item<double>(), norm, 1e-5 * norm);
    EXPECT_NEAR(norm, x.to(at::kDouble).norm(2, 1).max().item<double>(), 1e-5 * norm);
  }
}

TEST_F(Fp8OnAGpu, ActivationAsOnACpu) {
  const at::Tensor z = random_tensor({272, 144}, at::kBFloat16, 1), dy = random_tensor({272, 144}, at::kBFloat16, 2);
  const auto same = [](const Fp8Matrix& found, const Fp8Matrix& expected) {
    EXPECT_EQ(found.scale.item<float>(), expected.scale.item<float>());
    EXPECT_TRUE(bytes(found.rows).equal(bytes(expected.rows)));
    EXPECT_TRUE(bytes(found.columns).equal(bytes(expected.columns)));
  };
  const at::Tensor largest = largest_relu_squared(z), bound = at::full({1}, 100.0);
  same(relu_squared_to_fp8(z.to(at::kCUDA), largest.to(at::kCUDA)), relu_squared_to_fp8(z, largest));
  same(relu_squared_backward_to_fp8(dy.to(at::kCUDA), z.to(at::kCUDA), bound.to(at::kCUDA)),
       relu_squared_backward_to_fp8(dy, z, bound));
}

}  // namespace
}  // namespace nanochat::ops
