// The operations on a GPU at the shapes of a 12-layer model (32 x 2048 tokens, width 768, vocabulary 65,536), by the
// kernels (argument 0) and by the ATen reference (1). Skipped with a message where no GPU is.
#include <benchmark/benchmark.h>

#include <ATen/ops/empty.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include "ops/attention.h"
#include "ops/cuda/backend.h"
#include "ops/device.h"
#include "ops/reference.h"

namespace nanochat::benchmarks {
namespace {

constexpr std::int64_t kBatch = 32, kTime = 2048, kTokens = kBatch * kTime, kWidth = 768, kHeads = 6, kHeadDim = 128;
constexpr std::int64_t kHidden = 4 * kWidth, kVocabulary = 65536, kRowsOfLogits = 8192;
constexpr double kEps = 1e-6;
constexpr int kLaunches = 10;  // between two waits, as in a model, where the GPU is never waited for

at::Tensor random(at::IntArrayRef shape) { return at::randn(shape, at::TensorOptions(at::kBFloat16).device(at::kCUDA)); }
at::Tensor floats(at::IntArrayRef shape) { return at::zeros(shape, at::TensorOptions(at::kFloat).device(at::kCUDA)); }

// Times kernels(args...) or reference(args...). `bytes`: what must move through memory at the least.
template <class Function, class... Arguments>
void compare(benchmark::State& state, std::int64_t bytes, Function* kernels, Function* reference, Arguments&&... arguments) {
  Function* function = state.range(0) == 0 ? kernels : reference;
  for (auto _ : state) {
    for (int i = 0; i < kLaunches; ++i) function(arguments...);
    ops::synchronize(at::kCUDA);
  }
  state.SetBytesProcessed(state.iterations() * kLaunches * bytes);
  state.SetLabel(state.range(0) == 0 ? "kernels" : "reference");
}

bool skip(benchmark::State& state) {
  if (ops::cuda_devices() > 0) return false;
  state.SkipWithError("no GPU that this build can use");
  return true;
}

void gpu_add_rms_norm(benchmark::State& state) {
  if (skip(state)) return;
  at::Tensor residual = random({kTokens, kWidth}), y = random({kTokens, kWidth}), rstd = floats({kTokens});
  const at::Tensor branch = floats({kTokens, kWidth}).to(at::kBFloat16);
  compare(state, kTokens * kWidth * 2 * 4, ops::cuda::add_rms_norm, ops::reference::add_rms_norm, residual, branch, y, rstd,
          kEps);
}

void gpu_rms_norm_backward(benchmark::State& state) {
  if (skip(state)) return;
  const at::Tensor dy = random({kTokens, kWidth}), y = random({kTokens, kWidth}), rstd = floats({kTokens});
  at::Tensor dx = random({kTokens, kWidth});
  compare(state, kTokens * kWidth * 2 * 4, ops::cuda::rms_norm_backward, ops::reference::rms_norm_backward, dy, y, rstd, dx,
          true);
}

struct Projection {
  at::Tensor qkv = random({kBatch, kTime, 3 * kWidth}), q = random({kBatch, kTime, kHeads, kHeadDim}),
             k = random({kBatch, kTime, kHeads, kHeadDim}), v = random({kBatch, kTime, kHeads, kHeadDim}),
             rstd = floats({kBatch, kTime, 2 * kHeads});
  ops::RopeTable table = {floats({kTime, kHeadDim / 2}), floats({kTime, kHeadDim / 2})};
};

void gpu_rope_qk_norm(benchmark::State& state) {
  if (skip(state)) return;
  Projection p;
  compare(state, kTokens * kWidth * 2 * 4, ops::cuda::rope_qk_norm, ops::reference::rope_qk_norm, p.qkv, p.table, at::Tensor(),
          p.q, p.k, p.rstd, kEps);
}

void gpu_rope_qk_norm_backward(benchmark::State& state) {
  if (skip(state)) return;
  Projection p;
  const at::Tensor dq = random(p.q.sizes()), dk = random(p.q.sizes());
  compare(state, kTokens * kWidth * 2 * 8, ops::cuda::rope_qk_norm_backward, ops::reference::rope_qk_norm_backward, dq, dk, p.v,
          p.q, p.k, p.rstd, p.table, p.qkv);
}

void gpu_relu_squared(benchmark::State& state) {
  if (skip(state)) return;
  const at::Tensor x = random({kTokens, kHidden});
  at::Tensor y = random({kTokens, kHidden});
  compare(state, kTokens * kHidden * 2 * 2, ops::cuda::relu_squared, ops::reference::relu_squared, x, y);
}

void gpu_relu_squared_backward(benchmark::State& state) {
  if (skip(state)) return;
  const at::Tensor x = random({kTokens, kHidden}), dy = random({kTokens, kHidden});
  at::Tensor dx = random({kTokens, kHidden});
  compare(state, kTokens * kHidden * 2 * 3, ops::cuda::relu_squared_backward, ops::reference::relu_squared_backward, dy, x, dx);
}

at::Tensor random_ids(std::int64_t n) { return at::randint(kVocabulary, {n}, at::TensorOptions(at::kInt).device(at::kCUDA)); }

void gpu_embedding(benchmark::State& state) {
  if (skip(state)) return;
  const at::Tensor table = random({kVocabulary, kWidth}), ids = random_ids(kTokens);
  at::Tensor y = random({kTokens, kWidth});
  compare(state, kTokens * kWidth * 2 * 2, ops::cuda::embedding, ops::reference::embedding, table, ids, y);
}

void gpu_embedding_backward(benchmark::State& state) {
  if (skip(state)) return;
  const at::Tensor dy = random({kTokens, kWidth}), ids = random_ids(kTokens);
  at::Tensor gradient = floats({kVocabulary, kWidth});
  compare(state, kTokens * kWidth * 2 + kVocabulary * kWidth * 4 * 2, ops::cuda::embedding_backward,
          ops::reference::embedding_backward, dy, ids, gradient);
}

void gpu_softcap_cross_entropy(benchmark::State& state) {
  if (skip(state)) return;
  at::Tensor z = random({kRowsOfLogits, kVocabulary}), losses = floats({kRowsOfLogits});
  const at::Tensor targets = random_ids(kRowsOfLogits), scale = floats({kRowsOfLogits}).add(1.0);
  compare(state, kRowsOfLogits * kVocabulary * 2 * 2, ops::cuda::softcap_cross_entropy, ops::reference::softcap_cross_entropy,
          z, targets, scale, losses, kVocabulary, 15.0);
}

void gpu_adamw(benchmark::State& state) {
  if (skip(state)) return;
  at::Tensor p = floats({kVocabulary, kWidth}), m = floats({kVocabulary, kWidth}), v = floats({kVocabulary, kWidth});
  const at::Tensor g = floats({kVocabulary, kWidth});
  at::Tensor copy = p.to(at::kBFloat16);
  compare(state, kVocabulary * kWidth * (7 * 4 + 2), ops::cuda::adamw, ops::reference::adamw, p, g, m, v, copy,
          ops::AdamWArguments());
}

void gpu_muon_directions(benchmark::State& state) {
  if (skip(state)) return;
  ops::MatrixList matrices;
  constexpr std::int64_t kCount = 12;
  for (std::int64_t i = 0; i < kCount; ++i) {
    const at::Tensor gradient = random({kHidden, kWidth}).to(at::kFloat);
    matrices.add(gradient, gradient, floats({kHidden, kWidth}), gradient);
  }
  compare(state, kCount * kHidden * kWidth * (3 * 4 + 3 * 2), ops::cuda::muon_directions, ops::reference::muon_directions,
          matrices, at::kBFloat16, 1.0, 0.95, true);
}

// Forward and backward; the rate is of floating-point operations, causal half counted.
void gpu_causal_attention(benchmark::State& state) {
  if (skip(state)) return;
  const at::Tensor q = random({kBatch, kTime, kHeads, kHeadDim}), k = random(q.sizes()), v = random(q.sizes());
  const at::Tensor dout = random(q.sizes());
  for (auto _ : state) {
    for (int i = 0; i < kLaunches; ++i) {
      const ops::AttentionForward forward = ops::causal_attention(q, k, v);
      benchmark::DoNotOptimize(ops::causal_attention_backward(dout, q, k, v, forward));
    }
    ops::synchronize(at::kCUDA);
  }
  const double flops = 7.0 * kBatch * kHeads * kTime * kTime * kHeadDim;  // 2 products forward, 5 backward, halved
  state.counters["FLOP/s"] = benchmark::Counter(flops * kLaunches, benchmark::Counter::kIsIterationInvariantRate);
}

#define NANOCHAT_GPU_BENCHMARK(name) BENCHMARK(name)->ArgName("reference")->Arg(0)->Arg(1)->UseRealTime()
NANOCHAT_GPU_BENCHMARK(gpu_add_rms_norm);
NANOCHAT_GPU_BENCHMARK(gpu_rms_norm_backward);
NANOCHAT_GPU_BENCHMARK(gpu_rope_qk_norm);
NANOCHAT_GPU_BENCHMARK(gpu_rope_qk_norm_backward);
NANOCHAT_GPU_BENCHMARK(gpu_relu_squared);
NANOCHAT_GPU_BENCHMARK(gpu_relu_squared_backward);
NANOCHAT_GPU_BENCHMARK(gpu_embedding);
NANOCHAT_GPU_BENCHMARK(gpu_embedding_backward);
NANOCHAT_GPU_BENCHMARK(gpu_softcap_cross_entropy);
NANOCHAT_GPU_BENCHMARK(gpu_adamw);
NANOCHAT_GPU_BENCHMARK(gpu_muon_directions);
BENCHMARK(gpu_causal_attention)->UseRealTime();

}  // namespace
}  // namespace nanochat::benchmarks
