// Row kernels on one thread, on as much memory as the second-level cache holds.
#include "ops/cpu/kernels.h"

#include <benchmark/benchmark.h>

#include <vector>

namespace nanochat::benchmarks {
namespace {

using ops::cpu::bf16;
using ops::cpu::kernels;

constexpr std::int64_t kRows = 64, kWidth = 768, kElements = kRows * kWidth;

template <class T>
std::vector<T> ones(std::int64_t n = kElements) {
  std::vector<T> x(static_cast<std::size_t>(n));
  const std::vector<float> one(x.size(), 1.0F);
  kernels<T>().from_float(one.data(), x.data(), n);
  return x;
}

template <class T>
void count_bytes(benchmark::State& state, std::int64_t tensors, std::int64_t elements = kElements) {
  state.SetBytesProcessed(state.iterations() * tensors * elements * static_cast<std::int64_t>(sizeof(T)));
  state.SetLabel(ops::cpu::kernel_level());
}

template <class T>
void rms_norm(benchmark::State& state) {
  const auto x = ones<T>();
  auto y = ones<T>();
  std::vector<float> rstd(kRows);
  for (auto _ : state) {
    kernels<T>().rms_norm(x.data(), y.data(), rstd.data(), kRows, kWidth, 1e-6F);
    benchmark::ClobberMemory();
  }
  count_bytes<T>(state, 2);
}

template <class T>
void add_rms_norm(benchmark::State& state) {
  auto residual = ones<T>(), y = ones<T>();
  const std::vector<T> branch(residual.size());
  std::vector<float> rstd(kRows);
  for (auto _ : state) {
    kernels<T>().add_rms_norm(residual.data(), branch.data(), y.data(), rstd.data(), kRows, kWidth, 1e-6F);
    benchmark::ClobberMemory();
  }
  count_bytes<T>(state, 4);
}

template <class T>
void rms_norm_backward(benchmark::State& state) {
  const auto dy = ones<T>(), y = ones<T>();
  auto dx = ones<T>();
  const std::vector<float> rstd(kRows, 1.0F);
  for (auto _ : state) {
    kernels<T>().rms_norm_backward(dy.data(), y.data(), rstd.data(), dx.data(), kRows, kWidth, false);
    benchmark::ClobberMemory();
  }
  count_bytes<T>(state, 3);
}

template <class T>
void rope_norm(benchmark::State& state) {
  constexpr std::int64_t kHeadSize = 64;
  const auto x = ones<T>();
  auto y = ones<T>();
  const std::vector<float> cos(kHeadSize / 2, 0.6F), sin(kHeadSize / 2, 0.8F);
  std::vector<float> rstd(kElements / kHeadSize);
  for (auto _ : state) {
    kernels<T>().rope_norm(x.data(), y.data(), rstd.data(), cos.data(), sin.data(), kElements / kHeadSize, kHeadSize, 1e-6F);
    benchmark::ClobberMemory();
  }
  count_bytes<T>(state, 2);
}

template <class T>
void relu_squared(benchmark::State& state) {
  const auto x = ones<T>();
  auto y = ones<T>();
  for (auto _ : state) {
    kernels<T>().relu_squared(x.data(), y.data(), kElements);
    benchmark::ClobberMemory();
  }
  count_bytes<T>(state, 2);
}

// One row of logits at a time, gradient included.
template <class T>
void softcap_cross_entropy(benchmark::State& state) {
  const std::int64_t vocab = state.range(0);
  const auto logits = ones<T>(vocab);
  auto z = logits;
  std::vector<float> scratch(static_cast<std::size_t>(2 * vocab));
  for (auto _ : state) {
    z = logits;
    benchmark::DoNotOptimize(kernels<T>().softcap_cross_entropy(z.data(), scratch.data(), vocab, vocab, vocab / 2, 15.0F, true,
                                                                1.0F));
  }
  state.SetItemsProcessed(state.iterations() * vocab);
}

void exponentials(benchmark::State& state) {
  const std::vector<float> x(static_cast<std::size_t>(state.range(0)), -1.0F);
  for (auto _ : state) {
    benchmark::DoNotOptimize(ops::cpu::exponentials()(x.data(), nullptr, state.range(0), 0.0F, 1.0F));
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

void adamw(benchmark::State& state) {
  auto p = ones<float>(), m = ones<float>(), v = ones<float>();
  const auto g = ones<float>();
  std::vector<bf16> copy(p.size());
  for (auto _ : state) {
    ops::cpu::optimizer_kernels().adamw(p.data(), g.data(), m.data(), v.data(), copy.data(), kElements, 1.0F, 0.8F, 0.95F,
                                        1e-3F, 0.0F, 1e-10F, 0.2F, 0.2F);
    benchmark::ClobberMemory();
  }
  count_bytes<float>(state, 7);
}

BENCHMARK(rms_norm<float>);
BENCHMARK(rms_norm<bf16>);
BENCHMARK(add_rms_norm<float>);
BENCHMARK(add_rms_norm<bf16>);
BENCHMARK(rms_norm_backward<float>);
BENCHMARK(rms_norm_backward<bf16>);
BENCHMARK(rope_norm<float>);
BENCHMARK(rope_norm<bf16>);
BENCHMARK(relu_squared<float>);
BENCHMARK(relu_squared<bf16>);
BENCHMARK(softcap_cross_entropy<float>)->Arg(4096)->Arg(32768);
BENCHMARK(softcap_cross_entropy<bf16>)->Arg(4096)->Arg(32768);
BENCHMARK(exponentials)->Arg(4096)->Arg(131072);
BENCHMARK(adamw);

}  // namespace
}  // namespace nanochat::benchmarks
