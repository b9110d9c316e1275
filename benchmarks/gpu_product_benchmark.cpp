// The matrix products of training on a GPU, at the shapes of the layers of a model: by ATen, and by cublasLt with its first
// and its fastest algorithm, in bfloat16 and in 8 bits. The rate is of floating-point operations.
//   nanochat_gpu_benchmarks --benchmark_filter=gpu_product
#include <benchmark/benchmark.h>

#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include "ops/cuda/lt_product.h"
#include "ops/device.h"
#include "ops/fp8.h"

namespace nanochat::benchmarks {
namespace {

using ops::cuda::LtAlgorithm;

constexpr std::int64_t kTokens = 32 * 2048;
constexpr int kLaunches = 10;

enum Direction : std::int64_t { kForward, kBackwardInput, kBackwardWeight };
enum Way : std::int64_t { kAten, kFirst, kFastest, kNarrowFirst, kNarrowFastest };

// Normal numbers (rows, columns), in memory by rows or by columns.
at::Tensor random(std::int64_t rows, std::int64_t columns, bool by_rows, at::ScalarType type) {
  const at::TensorOptions options = at::TensorOptions(at::kBFloat16).device(at::kCUDA);
  return by_rows ? at::randn({rows, columns}, options).to(type) : at::randn({columns, rows}, options).to(type).t();
}

// y = x wᵀ for x (tokens, in) and w (out, in), dx = dy w, and dw += dyᵀ x. Operands of 8 bits lie along the sums.
void gpu_product(benchmark::State& state) {
  if (ops::cuda_devices() == 0) return state.SkipWithError("no GPU that this build can use");
  const std::int64_t in = state.range(0), out = state.range(1), direction = state.range(2), way = state.range(3);
  const bool narrow = way == kNarrowFirst || way == kNarrowFastest;
  const at::ScalarType value = narrow ? at::kFloat8_e4m3fn : at::kBFloat16,
                       gradient = narrow ? at::kFloat8_e5m2 : at::kBFloat16;
  at::Tensor a, b, y;
  const at::TensorOptions options = at::TensorOptions(at::kFloat).device(at::kCUDA);
  if (direction == kForward) {
    a = random(kTokens, in, true, value);
    b = random(in, out, false, value);
    y = at::zeros({kTokens, out}, options.dtype(at::kBFloat16));
  } else if (direction == kBackwardInput) {
    a = random(kTokens, out, true, gradient);
    b = random(out, in, !narrow, value);
    y = at::zeros({kTokens, in}, options.dtype(at::kBFloat16));
  } else {
    a = random(out, kTokens, narrow, gradient);
    b = random(kTokens, in, !narrow, value);
    y = at::zeros({out, in}, options);
  }
  const at::Tensor one = at::ones({1}, options);
  const bool adds = direction == kBackwardWeight;
  bool has_kernel = true;
  const auto multiply = [&] {
    if (way == kAten) return static_cast<void>(adds ? at::addmm_out(y, y, a, b, at::kFloat) : at::mm_out(y, a, b));
    has_kernel = ops::cuda::lt_product({.a = a,
                                        .b = b,
                                        .scale_a = one,
                                        .scale_b = one,
                                        .result = y,
                                        .addend = adds ? y : at::Tensor(),
                                        .beta = 1.0,
                                        .fast_accumulation = direction == kForward,
                                        .algorithm = way == kFastest || way == kNarrowFastest ? LtAlgorithm::kFastest
                                                                                              : LtAlgorithm::kFirst});
  };
  multiply();
  if (!has_kernel) return state.SkipWithError("cublasLt has no kernel for it");
  for (auto _ : state) {
    for (int i = 0; i < kLaunches; ++i) multiply();
    ops::synchronize(at::kCUDA);
  }
  state.counters["FLOP/s"] = benchmark::Counter(2.0 * kTokens * static_cast<double>(in * out) * kLaunches,
                                                benchmark::Counter::kIsIterationInvariantRate);
}

void shapes(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"in", "out", "direction", "way"});
  for (const std::int64_t width : {768, 1280}) {
    for (const auto& [in, out] :
         {std::pair{width, 3 * width}, std::pair{width, width}, std::pair{width, 4 * width}, std::pair{4 * width, width}}) {
      for (const std::int64_t direction : {kForward, kBackwardInput, kBackwardWeight}) {
        for (const std::int64_t way : {kAten, kFirst, kFastest, kNarrowFirst, kNarrowFastest}) {
          benchmark->Args({in, out, direction, way});
        }
      }
    }
  }
}
BENCHMARK(gpu_product)->Apply(shapes)->UseRealTime();

// From bfloat16 to 8 bits; argument 0: by rows, 1: by columns, 2: both, 3: only the largest magnitude.
void gpu_to_fp8(benchmark::State& state) {
  if (ops::cuda_devices() == 0) return state.SkipWithError("no GPU that this build can use");
  constexpr std::int64_t kWidth = 5120;
  const std::int64_t what = state.range(0);
  const at::Tensor x = random(kTokens, kWidth, true, at::kBFloat16), largest = ops::largest_magnitude(x);
  const ops::Fp8Orders wanted = {.rows = what == 0 || what == 2, .columns = what == 1 || what == 2};
  for (auto _ : state) {
    for (int i = 0; i < kLaunches; ++i) {
      if (what == 3) {
        benchmark::DoNotOptimize(ops::largest_magnitude(x));
      } else {
        benchmark::DoNotOptimize(ops::to_fp8(x, largest, ops::Fp8Format::kE5M2, wanted));
      }
    }
    ops::synchronize(at::kCUDA);
  }
  const std::int64_t bytes = what == 3 ? 2 : 2 + wanted.rows + wanted.columns;
  state.SetBytesProcessed(state.iterations() * kLaunches * bytes * x.numel());
}
BENCHMARK(gpu_to_fp8)->ArgName("what")->DenseRange(0, 3)->UseRealTime();

}  // namespace
}  // namespace nanochat::benchmarks
