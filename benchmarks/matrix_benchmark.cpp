// What matrix products dominate: linear layers, the head with its loss, and a step of Muon.
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <benchmark/benchmark.h>

#include "ops/cross_entropy.h"
#include "ops/linear.h"
#include "optim/muon.h"
#include "random_tensor.h"

namespace nanochat::benchmarks {
namespace {

void count_flops(benchmark::State& state, double flops) {
  state.counters["FLOP/s"] = benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate);
}

// Arguments: tokens, inputs, outputs, dtype.
void linear(benchmark::State& state) {
  const at::ScalarType dtype = dtype_of(state.range(3));
  const at::Tensor x = random_tensor({state.range(0), state.range(1)}, dtype);
  const at::Tensor w = random_tensor({state.range(2), state.range(1)}, dtype);
  at::Tensor y = at::empty({state.range(0), state.range(2)}, dtype);
  for (auto _ : state) ops::linear(x, w, y);
  count_flops(state, 2.0 * static_cast<double>(state.range(0) * state.range(1) * state.range(2)));
}

void linear_backward(benchmark::State& state) {
  const at::ScalarType dtype = dtype_of(state.range(3));
  const at::Tensor x = random_tensor({state.range(0), state.range(1)}, dtype);
  const at::Tensor w = random_tensor({state.range(2), state.range(1)}, dtype);
  const at::Tensor dy = random_tensor({state.range(0), state.range(2)}, dtype);
  at::Tensor dx = at::empty(x.sizes(), dtype), scratch = at::empty(w.sizes(), dtype);
  at::Tensor dw = at::zeros(w.sizes(), at::kFloat);
  for (auto _ : state) {
    ops::linear_backward_input(dy, w, dx);
    ops::linear_backward_weight(dy, x, dw, scratch);
  }
  count_flops(state, 4.0 * static_cast<double>(state.range(0) * state.range(1) * state.range(2)));
}

void linear_shapes(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"N", "K", "M", "bf16"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  for (const std::int64_t dtype : {0, 1}) {
    benchmark->Args({4096, 256, 1024, dtype});
    benchmark->Args({4096, 384, 1536, dtype});
    benchmark->Args({1, 768, 3072, dtype});  // decoding one row
    benchmark->Args({16, 256, 1024, dtype});
  }
}

// Arguments: tokens, width, vocabulary, dtype.
void head_losses_and_gradients(benchmark::State& state) {
  const at::ScalarType dtype = dtype_of(state.range(3));
  const at::Tensor x = random_tensor({state.range(0), state.range(1)}, dtype);
  const at::Tensor w = random_tensor({state.range(2), state.range(1)}, dtype, 0.05);
  const at::Tensor targets = at::full({state.range(0)}, 7, at::kInt);
  const at::Tensor scale = at::full({state.range(0)}, 1e-3, at::kFloat);
  at::Tensor losses = at::empty({state.range(0)}, at::kFloat), dx = at::empty(x.sizes(), dtype);
  at::Tensor dw = at::zeros(w.sizes(), at::kFloat);
  const ops::HeadOptions options{.vocab_size = state.range(2)};
  for (auto _ : state) ops::head_losses_and_gradients(x, w, targets, scale, options, losses, dx, dw);
  count_flops(state, 6.0 * static_cast<double>(state.range(0) * state.range(1) * state.range(2)));
}

void head_shapes(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"N", "C", "V", "bf16"})->UseRealTime()->Unit(benchmark::kMillisecond);
  for (const std::int64_t dtype : {0, 1}) {
    benchmark->Args({4096, 256, 4096, dtype});
    benchmark->Args({4096, 384, 32768, dtype});
  }
}

// Arguments: matrices, rows, columns.
void muon_step(benchmark::State& state) {
  nanochat::ops::MatrixList matrices;
  for (std::int64_t i = 0; i < state.range(0); ++i) {
    const std::vector<std::int64_t> shape = {state.range(1), state.range(2)};
    matrices.add(random_tensor(shape, at::kFloat), random_tensor(shape, at::kFloat), at::zeros(shape, at::kFloat),
                 at::empty(shape, at::kBFloat16));
  }
  for (auto _ : state) nanochat::muon_step(matrices, 0.02, 0.95, 1.0, MuonOptions());
}

BENCHMARK(linear)->Apply(linear_shapes);
BENCHMARK(linear_backward)->Apply(linear_shapes);
BENCHMARK(head_losses_and_gradients)->Apply(head_shapes);
BENCHMARK(muon_step)
    ->ArgNames({"matrices", "R", "C"})
    ->Args({16, 256, 256})
    ->Args({4, 1024, 256})
    ->Args({6, 384, 1536})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace nanochat::benchmarks
