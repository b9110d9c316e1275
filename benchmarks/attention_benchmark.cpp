// Attention at the shapes of training and of decoding. Counter: floating-point operations of the products that a
// causal mask leaves over.
#include "ops/attention.h"

#include <ATen/ops/full.h>
#include <benchmark/benchmark.h>

#include "random_tensor.h"

namespace nanochat::benchmarks {
namespace {

struct Inputs {
  at::Tensor q, k, v, dout;
};

// Arguments: rows, positions, heads, key/value heads, head size, dtype.
Inputs inputs_of(const benchmark::State& state) {
  const at::ScalarType dtype = dtype_of(state.range(5));
  const std::vector<std::int64_t> queries = {state.range(0), state.range(1), state.range(2), state.range(4)};
  const std::vector<std::int64_t> keys = {state.range(0), state.range(1), state.range(3), state.range(4)};
  return {random_tensor(queries, dtype), random_tensor(keys, dtype), random_tensor(keys, dtype), random_tensor(queries, dtype)};
}

// `products`: matrix products over all pairs of positions, 2 forward, 5 backward.
void count_flops(benchmark::State& state, double products) {
  const auto pairs = static_cast<double>(state.range(1)) * static_cast<double>(state.range(1) + 1) / 2;
  const double flops = products * 2.0 * pairs * static_cast<double>(state.range(0) * state.range(2) * state.range(4));
  state.counters["FLOP/s"] = benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate);
}

void attention_forward(benchmark::State& state) {
  const Inputs in = inputs_of(state);
  for (auto _ : state) benchmark::DoNotOptimize(ops::causal_attention(in.q, in.k, in.v));
  count_flops(state, 2.0);
}

void attention_backward(benchmark::State& state) {
  const Inputs in = inputs_of(state);
  const ops::AttentionForward forward = ops::causal_attention(in.q, in.k, in.v);
  for (auto _ : state) benchmark::DoNotOptimize(ops::causal_attention_backward(in.dout, in.q, in.k, in.v, forward));
  count_flops(state, 5.0);
}

void attention_decode(benchmark::State& state) {
  Inputs in = inputs_of(state);
  const at::Tensor q = in.q.narrow(1, 0, 1).contiguous();
  const at::Tensor start = at::full({state.range(0)}, state.range(1) - 1, at::kLong);
  for (auto _ : state) benchmark::DoNotOptimize(ops::cached_attention(q, in.k, in.v, start));
  const auto bytes = static_cast<std::int64_t>(in.k.nbytes() + in.v.nbytes());
  state.SetBytesProcessed(state.iterations() * bytes);
}

void shapes(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"B", "T", "NH", "NKV", "D", "bf16"})->UseRealTime()->Unit(benchmark::kMillisecond);
  for (const std::int64_t dtype : {0, 1}) {
    benchmark->Args({16, 256, 4, 4, 64, dtype});
    benchmark->Args({8, 512, 6, 6, 64, dtype});
    benchmark->Args({1, 2048, 12, 6, 128, dtype});
  }
}

BENCHMARK(attention_forward)->Apply(shapes);
BENCHMARK(attention_backward)->Apply(shapes);
BENCHMARK(attention_decode)->Apply(shapes);

}  // namespace
}  // namespace nanochat::benchmarks
