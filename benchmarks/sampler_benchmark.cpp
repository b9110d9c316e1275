// One token from the logits of a vocabulary.
#include "inference/sampler.h"

#include <benchmark/benchmark.h>

#include "core/random.h"

namespace nanochat::benchmarks {
namespace {

void sample(benchmark::State& state, const SamplingOptions& options) {
  Rng rng(1);
  std::vector<float> logits(static_cast<std::size_t>(state.range(0)));
  for (float& logit : logits) logit = static_cast<float>(3.0 * rng.normal());
  Sampler sampler(options);
  std::uint64_t position = 0;
  for (auto _ : state) benchmark::DoNotOptimize(sampler.sample(logits, {.uniform = uniform_at(1, 0, position++)}));
  state.SetItemsProcessed(state.iterations());
}

BENCHMARK_CAPTURE(sample, greedy, SamplingOptions{.temperature = 0.0})->Arg(4096)->Arg(131072);
BENCHMARK_CAPTURE(sample, all, SamplingOptions{.temperature = 0.8})->Arg(4096)->Arg(131072);
BENCHMARK_CAPTURE(sample, top_k, SamplingOptions{.temperature = 0.8, .top_k = 50})->Arg(4096)->Arg(131072);
BENCHMARK_CAPTURE(sample, top_p, SamplingOptions{.temperature = 0.8, .top_p = 0.95})->Arg(4096)->Arg(131072);
BENCHMARK_CAPTURE(sample, min_p, SamplingOptions{.temperature = 0.8, .min_p = 0.05})->Arg(4096)->Arg(131072);

}  // namespace
}  // namespace nanochat::benchmarks
