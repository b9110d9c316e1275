// The operations of a decoding step on a GPU at the shapes of a 20-layer model (width 1280, 10 heads of 128, vocabulary
// 65,536) in bfloat16, recorded as graphs, so that kernels are timed and not their launches. Weights and caches of many
// layers are read in turn: together they are several times as large as the second-level cache. Skipped with a message where
// no GPU is.
//
//   nanochat_gpu_benchmarks --benchmark_filter=decode --benchmark_min_time=0.05
#include <benchmark/benchmark.h>

#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "core/random.h"
#include "ops/attention.h"
#include "ops/cross_entropy.h"
#include "ops/cuda/backend.h"
#include "ops/cuda/kernels.h"
#include "ops/device.h"
#include "ops/device_graph.h"
#include "ops/linear.h"
#include "ops/paged_attention.h"
#include "ops/relu_squared.h"
#include "ops/rms_norm.h"
#include "ops/rope.h"
#include "ops/sample.h"

namespace nanochat::benchmarks {
namespace {

constexpr std::int64_t kVocabulary = 65536, kHeadDim = 128, kBlockSize = 16;
constexpr double kEps = 1e-6;
constexpr std::int64_t kCold = std::int64_t{400} << 20;  // bytes that are read before any of them is read again

at::Device gpu() { return at::Device(at::kCUDA, 0); }
at::Tensor random(at::IntArrayRef shape, at::ScalarType dtype = at::kBFloat16) {
  return at::randn(shape, at::TensorOptions(dtype).device(gpu()));
}
at::Tensor space(at::IntArrayRef shape, at::ScalarType dtype = at::kBFloat16) {
  return at::empty(shape, at::TensorOptions(dtype).device(gpu()));
}

bool skip(benchmark::State& state) {
  if (ops::cuda_devices() > 0) return false;
  state.SkipWithError("no GPU that this build can use");
  return true;
}

// Times `work`, which runs an operation `times` times and moves `bytes` through memory.
template <class Work>
void time_graph(benchmark::State& state, std::int64_t times, double bytes, double flops, const Work& work) {
  constexpr int kReplays = 4;
  ops::DeviceGraph graph(gpu(), work);
  for (int i = 0; i < 2; ++i) graph.replay();
  ops::synchronize(gpu());
  for (auto _ : state) {
    for (int i = 0; i < kReplays; ++i) graph.replay();
    ops::synchronize(gpu());
  }
  using Counter = benchmark::Counter;
  state.counters["us"] = Counter(static_cast<double>(kReplays * times) * 1e-6,
                                 Counter::kIsIterationInvariantRate | Counter::kInvert);
  if (bytes > 0) state.counters["GB/s"] = Counter(kReplays * bytes * 1e-9, Counter::kIsIterationInvariantRate);
  if (flops > 0) state.counters["TFLOP/s"] = Counter(kReplays * flops * 1e-12, Counter::kIsIterationInvariantRate);
}

void gpu_copy(benchmark::State& state) {
  if (skip(state)) return;
  const at::Tensor from = random({std::int64_t{1} << 30});
  at::Tensor to = space(from.sizes());
  time_graph(state, 1, 4.0 * static_cast<double>(from.numel()), 0, [&] { to.copy_(from); });
}
BENCHMARK(gpu_copy)->UseRealTime();

// --------------------------------------------------------------------------------------------------------- products

// rows, columns of y, inner dimension, 0: our kernel, 1: cuBLAS.
void gpu_linear_rows(benchmark::State& state) {
  if (skip(state)) return;
  const std::int64_t rows = state.range(0), m = state.range(1), k = state.range(2);
  const bool library = state.range(3) != 0;
  if (!library && rows > ops::cuda::kMostLinearRows) return state.SkipWithError("too many rows for the kernel");
  std::vector<at::Tensor> weights;
  for (std::int64_t i = 0; i < std::max<std::int64_t>(4, kCold / (m * k * 2)); ++i) weights.push_back(random({m, k}));
  const at::Tensor x = random({rows, k});
  at::Tensor y = space({rows, m});
  const auto times = static_cast<std::int64_t>(weights.size());
  time_graph(state, times, 2.0 * static_cast<double>(times * m * k), 0, [&] {
    for (const at::Tensor& w : weights) library ? static_cast<void>(at::mm_out(y, x, w.t())) : ops::linear_rows(x, w, y);
  });
}
void linear_shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"rows", "m", "k", "cublas"});
  for (const auto& [m, k] : {std::pair{3840, 1280},
                             {1280, 1280},
                             {5120, 1280},
                             {1280, 5120},
                             {65536, 1280},
                             {2304, 768},
                             {768, 768},
                             {3072, 768},
                             {768, 3072}}) {
    for (const int rows : {1, 2, 4, 8, 16, 32, 64, 128}) {
      for (const int library : {0, 1}) {
        if (library == 1 || rows <= ops::cuda::kMostLinearRows) b->Args({rows, m, k, library});
      }
    }
  }
}
BENCHMARK(gpu_linear_rows)->Apply(linear_shapes)->UseRealTime();

// -------------------------------------------------------------------------------------------------------- attention

struct Cache {
  std::vector<at::Tensor> keys, values;
  ops::PagedBatch batch;

  // `tokens` of each of `sequences` sequences, behind `start` others; blocks in shuffled order.
  Cache(std::int64_t layers, std::int64_t sequences, std::int64_t start, std::int64_t tokens, std::int64_t heads,
        at::ScalarType dtype = at::kBFloat16) {
    const std::int64_t each = (start + tokens + kBlockSize - 1) / kBlockSize, blocks = sequences * each;
    for (std::int64_t i = 0; i < layers; ++i) {
      keys.push_back(random({blocks, heads, kBlockSize, kHeadDim}).to(dtype));
      values.push_back(random({blocks, heads, kBlockSize, kHeadDim}).to(dtype));
    }
    std::vector<std::int32_t> order(static_cast<std::size_t>(blocks));
    std::iota(order.begin(), order.end(), 0);
    Rng(1).shuffle(order);
    for (std::int64_t s = 0; s < sequences; ++s) {
      batch.sequences.push_back({start, tokens, {order.begin() + s * each, order.begin() + (s + 1) * each}});
    }
  }
};

at::ScalarType cache_dtype(bool fp8) { return fp8 ? at::kFloat8_e4m3fn : at::kBFloat16; }

double bytes_of(const Cache& cache) {
  double bytes = 0;
  for (const ops::PagedBatch::Sequence& s : cache.batch.sequences) bytes += static_cast<double>(s.start + s.tokens);
  const auto element = static_cast<std::int64_t>(cache.keys.front().element_size());
  return bytes * static_cast<double>(cache.keys.front().size(1) * kHeadDim * 2 * element) *
         static_cast<double>(cache.keys.size());
}

// sequences, context, keys of a split (0: chosen).
void gpu_decode_attention(benchmark::State& state) {
  if (skip(state)) return;
  const std::int64_t sequences = state.range(0), context = state.range(1), heads = state.range(3), kv_heads = state.range(4);
  const std::int64_t layers = std::clamp<std::int64_t>(kCold / (sequences * context * kv_heads * 512), 2, 24);
  const Cache cache(layers, sequences, context - 1, 1, kv_heads);
  const ops::DevicePagedBatch batch(cache.batch, cache.keys.front(), heads, {.split = state.range(2)});
  const at::Tensor q = random({sequences, heads, kHeadDim});
  state.SetLabel("split " + std::to_string(batch.tiles().split));
  time_graph(state, layers, bytes_of(cache), 0, [&] {
    for (std::size_t i = 0; i < cache.keys.size(); ++i) ops::paged_attention(q, cache.keys[i], cache.values[i], batch);
  });
}
BENCHMARK(gpu_decode_attention)
    ->ArgNames({"sequences", "context", "split", "heads", "kv_heads"})
    ->ArgsProduct({{1, 8, 32, 128}, {512, 2048}, {0, 64, 128, 256, 512}, {10}, {10}})
    ->ArgsProduct({{1, 32}, {2048}, {0}, {12}, {2, 3}})
    ->UseRealTime();

// The same with the norm and rotation of queries and keys and the writes to the cache before it: one kernel or two.
void gpu_decode_rope_attention(benchmark::State& state) {
  if (skip(state)) return;
  const std::int64_t sequences = state.range(0), context = state.range(1), heads = 10;
  const bool fused = state.range(2) != 0, fp8 = state.range(3) != 0;
  const std::int64_t bytes = sequences * context * heads * (fp8 ? 256 : 512);  // of a layer
  const std::int64_t layers = std::clamp<std::int64_t>(kCold / bytes, 2, 48);
  Cache cache(layers, sequences, context - 1, 1, heads, cache_dtype(fp8));
  const ops::DevicePagedBatch batch(cache.batch, cache.keys.front(), heads);
  const ops::RopeTable table = {space({4096, kHeadDim / 2}, at::kFloat).fill_(1.0),
                                space({4096, kHeadDim / 2}, at::kFloat).fill_(0.0)};
  const at::Tensor qkv = random({sequences, 3 * heads * kHeadDim});
  at::Tensor q = space({sequences, heads, kHeadDim}), out = space(q.sizes());
  if (fused) {
    if (!batch.fuses_decodes()) return state.SkipWithError("no such kernel for this GPU");
    state.SetLabel(std::to_string(batch.decode_parts()) + " parts");
  }
  time_graph(state, layers, bytes_of(cache), 0, [&] {
    for (std::size_t i = 0; i < cache.keys.size(); ++i) {
      if (fused) {
        ops::rope_paged_decode(qkv, table, batch, cache.keys[i], cache.values[i], {}, kEps, out);
        continue;
      }
      ops::rope_qk_norm_store(qkv, table, batch, q, cache.keys[i], cache.values[i], kEps);
      ops::paged_attention(q, cache.keys[i], cache.values[i], batch, {}, out);
    }
  });
}
BENCHMARK(gpu_decode_rope_attention)
    ->ArgNames({"sequences", "context", "fused", "fp8"})
    ->ArgsProduct({{1, 8, 16, 32, 64, 128}, {544}, {0, 1}, {0, 1}})
    ->ArgsProduct({{1, 8, 128}, {2048}, {0, 1}, {0, 1}})
    ->UseRealTime();

// sequences, start, tokens, 0: our kernel over the cache, 1: causal attention of LibTorch over dense keys.
void gpu_prompt_attention(benchmark::State& state) {
  if (skip(state)) return;
  const std::int64_t sequences = state.range(0), start = state.range(1), tokens = state.range(2), heads = 10, layers = 4;
  const double pairs = static_cast<double>(tokens) * static_cast<double>(start) + 0.5 * static_cast<double>(tokens * tokens);
  const double flops = 4.0 * static_cast<double>(layers * sequences * heads * kHeadDim) * pairs;
  if (state.range(3) != 0) {
    const at::Tensor q = random({sequences, tokens, heads, kHeadDim}), k = random(q.sizes()), v = random(q.sizes());
    time_graph(state, layers, 0, flops, [&] {
      for (std::int64_t i = 0; i < layers; ++i) ops::causal_attention(q, k, v);
    });
    return;
  }
  const Cache cache(layers, sequences, start, tokens, heads, cache_dtype(state.range(5) != 0));
  const ops::DevicePagedBatch batch(cache.batch, cache.keys.front(), heads, {.batch_invariant = state.range(4) != 0});
  const at::Tensor q = random({sequences * tokens, heads, kHeadDim});
  time_graph(state, layers, 0, flops, [&] {
    for (std::size_t i = 0; i < cache.keys.size(); ++i) ops::paged_attention(q, cache.keys[i], cache.values[i], batch);
  });
}
BENCHMARK(gpu_prompt_attention)
    ->ArgNames({"sequences", "start", "tokens", "dense", "invariant", "fp8"})
    ->Args({32, 0, 512, 0, 0, 0})
    ->Args({32, 0, 512, 0, 0, 1})
    ->Args({32, 0, 512, 0, 1, 0})
    ->Args({32, 0, 512, 1, 0, 0})
    ->Args({8, 0, 2048, 0, 0, 0})
    ->Args({8, 0, 2048, 0, 0, 1})
    ->Args({8, 0, 2048, 1, 0, 0})
    ->Args({1, 1536, 512, 0, 0, 0})
    ->Args({1, 2000, 16, 0, 0, 0})
    ->Args({1, 2000, 16, 0, 0, 1})
    ->Args({1, 2000, 17, 0, 0, 0})
    ->Args({1, 2000, 17, 0, 0, 1})
    ->Args({1, 0, 128, 0, 0, 0})
    ->UseRealTime();

// ------------------------------------------------------------------------------------------------ rows, between those

void gpu_decode_rope_store(benchmark::State& state) {
  if (skip(state)) return;
  const std::int64_t sequences = state.range(0), heads = 10;
  Cache cache(1, sequences, 512, 1, heads);
  const ops::DevicePagedBatch batch(cache.batch, cache.keys.front(), heads);
  const ops::RopeTable table = {space({1024, kHeadDim / 2}, at::kFloat).fill_(1.0),
                                space({1024, kHeadDim / 2}, at::kFloat).fill_(0.0)};
  const at::Tensor qkv = random({sequences, 3 * heads * kHeadDim});
  at::Tensor q = space({sequences, heads, kHeadDim});
  time_graph(state, 20, 0, 0, [&] {
    for (int i = 0; i < 20; ++i) ops::rope_qk_norm_store(qkv, table, batch, q, cache.keys.front(), cache.values.front(), kEps);
  });
}
BENCHMARK(gpu_decode_rope_store)->ArgName("sequences")->Arg(1)->Arg(32)->Arg(128)->UseRealTime();

void gpu_decode_add_rms_norm(benchmark::State& state) {
  if (skip(state)) return;
  at::Tensor residual = random({state.range(0), 1280}), y = space(residual.sizes()), none;
  const at::Tensor branch = space(residual.sizes()).fill_(0.0);
  time_graph(state, 20, 0, 0, [&] {
    for (int i = 0; i < 20; ++i) ops::add_rms_norm(residual, branch, y, none, kEps);
  });
}
BENCHMARK(gpu_decode_add_rms_norm)->ArgName("rows")->Arg(1)->Arg(32)->Arg(128)->UseRealTime();

// --------------------------------------------------------------------------------------------------------- sampling

// rows of logits, kind of draw. From the host's lists to the end of the kernel: no graph.
void gpu_sample(benchmark::State& state) {
  if (skip(state)) return;
  const std::int64_t n = state.range(0);
  // As a pass of the model leaves them.
  at::Tensor logits = space({n, kVocabulary}, at::kFloat);
  const at::Tensor extremes = ops::logit_extremes(n, kVocabulary, gpu());
  ops::softcap_logits(random({n, kVocabulary}).mul(3.0), {.vocab_size = kVocabulary, .softcap = 0.0}, logits, extremes);
  std::vector<std::int32_t> history(1000);
  for (std::size_t i = 0; i < history.size(); ++i) history[i] = static_cast<std::int32_t>(i * 61 % kVocabulary);
  const std::vector<std::uint64_t> mask(kVocabulary / 64, 0x5555555555555555ULL);
  std::vector<ops::SampleRow> rows(static_cast<std::size_t>(n));
  static const char* const kKinds[] = {
      "greedy", "all", "top-k 50", "top-p 0.95", "top-k 50, top-p 0.95, min-p", "penalties, mask, logprobs"};
  Rng rng(1);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    ops::SampleRow& row = rows[i];
    row.row = static_cast<std::int64_t>(i);
    row.logprob = false;
    row.temperature = state.range(1) == 0 ? 0.0 : 0.8;
    row.uniform = rng.uniform();
    if (state.range(1) == 2 || state.range(1) == 4) row.top_k = 50;
    if (state.range(1) == 3 || state.range(1) == 4) row.top_p = 0.95;
    if (state.range(1) == 4) row.min_p = 0.01;
    if (state.range(1) == 5) {
      row.repetition_penalty = 1.1;
      row.presence_penalty = 0.5;
      row.seen = row.generated = history;
      row.allowed = mask;
      row.logprob = true;
      row.top_logprobs = 5;
    }
  }
  state.SetLabel(kKinds[state.range(1)]);
  for (auto _ : state) {
    for (int i = 0; i < 10; ++i) benchmark::DoNotOptimize(ops::DeviceSamples(logits, rows, {}, {}, extremes));
    ops::synchronize(gpu());
  }
  state.counters["us"] = benchmark::Counter(10e-6, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}
BENCHMARK(gpu_sample)->ArgNames({"rows", "kind"})->ArgsProduct({{1, 32, 128}, {0, 1, 2, 3, 4, 5}})->UseRealTime();

// ------------------------------------------------------------------------------------------------------- a whole step

// sequences, layers, context, 0: products by our kernel where it takes them, 1: cuBLAS, 2: ours with what stands around them, as
// ServingPass has it for up to 16 rows, 3: cuBLAS with the norms behind the products, as it has it for more. Embedding and
// sampling are not among it.
void gpu_decode_step(benchmark::State& state) {
  if (skip(state)) return;
  const std::int64_t n = state.range(0), layers = state.range(1), context = state.range(2), width = 64 * layers;
  const std::int64_t heads = width / kHeadDim;
  const bool library = state.range(3) == 1 || state.range(3) == 3, fused = state.range(3) == 2, late = state.range(3) == 3;
  if (fused && n > ops::cuda::kMostLinearRows) return state.SkipWithError("too many rows for the kernel");
  struct Layer {
    at::Tensor qkv, out, fc1, fc2;
  };
  std::vector<Layer> weights;
  for (std::int64_t i = 0; i < layers; ++i) {
    weights.push_back({random({3 * width, width}), random({width, width}), random({4 * width, width}),
                       random({width, 4 * width})});
  }
  const at::Tensor head = random({kVocabulary, width});
  Cache cache(layers, n, context - 1, 1, heads);
  const ops::DevicePagedBatch batch(cache.batch, cache.keys.front(), heads);
  state.SetLabel(std::to_string(batch.decode_parts()) + " parts");
  const ops::RopeTable table = {space({4096, kHeadDim / 2}, at::kFloat).fill_(1.0),
                                space({4096, kHeadDim / 2}, at::kFloat).fill_(0.0)};
  at::Tensor residual = random({n, width}), norm = space({n, width}), branch = space({n, width}), none;
  at::Tensor attended = space({n, heads, kHeadDim});
  at::Tensor qkv = space({n, 3 * width}), q = space({n, heads, kHeadDim}), hidden = space({n, 4 * width}),
             logits = space({n, kVocabulary}), capped = space({n, kVocabulary}, at::kFloat);
  const at::Tensor extremes = ops::logit_extremes(n, kVocabulary, gpu());
  const auto multiply = [&](const at::Tensor& x, const at::Tensor& w, at::Tensor& y) {
    library ? static_cast<void>(at::mm_out(y, x, w.t())) : ops::linear_rows(x, w, y);
  };
  const auto attend = [&](std::size_t i) {
    if (batch.fuses_decodes()) {
      return ops::rope_paged_decode(qkv, table, batch, cache.keys[i], cache.values[i], {}, kEps, attended,
                                    late ? residual : none);
    }
    ops::rope_qk_norm_store(qkv, table, batch, q, cache.keys[i], cache.values[i], kEps);
    ops::paged_attention(q, cache.keys[i], cache.values[i], batch, {}, attended);
  };
  const double weight_bytes = 2.0 * static_cast<double>(layers * 12 * width * width + kVocabulary * width);
  const ops::LinearFusion normalised{.normalise = true, .eps = kEps}, added{.add = true};
  const ops::LinearFusion activated{.normalise = true, .eps = kEps, .relu_squared = true};
  time_graph(state, 1, weight_bytes + bytes_of(cache), 0, [&] {
    if (!fused && !late) ops::rms_norm(residual, norm, none, kEps);
    for (std::size_t i = 0; i < weights.size(); ++i) {
      const Layer& layer = weights[i];
      if (fused) {
        ops::linear_rows(residual, layer.qkv, qkv, normalised);
        attend(i);
        ops::linear_rows(attended.view({n, width}), layer.out, residual, added);
        ops::linear_rows(residual, layer.fc1, hidden, activated);
        ops::linear_rows(hidden, layer.fc2, residual, added);
        continue;
      }
      if (late) {
        ops::linear(residual, layer.qkv, qkv);
        attend(i);
        ops::add_linear(attended.view({n, width}), layer.out, residual);
        ops::linear(residual, layer.fc1, hidden);
        ops::relu_squared_normalised(residual, hidden, kEps);
        ops::add_linear(hidden, layer.fc2, residual);
        continue;
      }
      multiply(norm, layer.qkv, qkv);
      attend(i);
      multiply(attended.view({n, width}), layer.out, branch);
      ops::add_rms_norm(residual, branch, norm, none, kEps);
      multiply(norm, layer.fc1, hidden);
      ops::relu_squared(hidden, hidden);
      multiply(hidden, layer.fc2, branch);
      ops::add_rms_norm(residual, branch, norm, none, kEps);
    }
    if (late) ops::rms_norm(residual, norm, none, kEps);
    fused ? ops::linear_rows(residual, head, logits, normalised) : multiply(norm, head, logits);
    ops::softcap_logits(logits, {.vocab_size = kVocabulary, .softcap = 15.0}, capped, extremes);
  });
  state.counters["tokens/s"] = benchmark::Counter(4.0 * static_cast<double>(n), benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(gpu_decode_step)
    ->ArgNames({"sequences", "layers", "context", "products"})
    ->ArgsProduct({{1, 8, 16, 32, 64, 128}, {20}, {512}, {0, 1, 2, 3}})
    ->ArgsProduct({{1, 8, 32, 128}, {12}, {512}, {2, 3}})
    ->ArgsProduct({{1, 8, 16}, {20}, {576}, {2}})  // what bench infer has on average with 128 tokens behind a prompt of 512
    ->ArgsProduct({{32, 64, 128}, {20}, {576}, {3}})
    ->UseRealTime();

}  // namespace
}  // namespace nanochat::benchmarks
