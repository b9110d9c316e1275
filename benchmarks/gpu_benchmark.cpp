// The operations on a GPU at the shapes of a 12-layer model (32 x 2048 tokens, width 768, vocabulary 65,536), by the
// kernels (argument 0) and by the ATen reference (1). Skipped with a message where no GPU is.
#include <benchmark/benchmark.h>

#include <ATen/ops/empty.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <vector>

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
template <class Kernels, class Reference, class... Arguments>
void compare(benchmark::State& state, std::int64_t bytes, const Kernels& kernels, const Reference& reference,
             Arguments&&... arguments) {
  const bool by_kernels = state.range(0) == 0;
  for (auto _ : state) {
    for (int i = 0; i < kLaunches; ++i) by_kernels ? kernels(arguments...) : reference(arguments...);
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
  const at::Tensor y = random({kTokens, kHidden}).square(), dy = random({kTokens, kHidden});
  at::Tensor dx = random({kTokens, kHidden});
  compare(state, kTokens * kHidden * 2 * 3, ops::cuda::relu_squared_backward, ops::reference::relu_squared_backward, dy, y, dx);
}

at::Tensor random_ids(std::int64_t n) { return at::randint(kVocabulary, {n}, at::TensorOptions(at::kInt).device(at::kCUDA)); }

void gpu_embedding(benchmark::State& state) {
  if (skip(state)) return;
  const at::Tensor table = random({kVocabulary, kWidth}), ids = random_ids(kTokens);
  at::Tensor y = random({kTokens, kWidth});
  compare(state, kTokens * kWidth * 2 * 2, ops::cuda::embedding, ops::reference::embedding, table, ids, y);
}

// As text has it: the sixth power of a uniform number makes small ids frequent.
at::Tensor uneven_ids(std::int64_t n) {
  const at::Tensor uniform = at::rand({n}, at::TensorOptions(at::kFloat).device(at::kCUDA));
  return uniform.pow(6).mul(kVocabulary - 1).to(at::kInt);
}

void gpu_embedding_backward(benchmark::State& state) {
  if (skip(state)) return;
  const at::Tensor dy = random({kTokens, kWidth}), ids = uneven_ids(kTokens);
  const ops::TokenOrder order = ops::order_tokens(ids);
  at::Tensor gradient = floats({kVocabulary, kWidth});
  compare(
      state, kTokens * kWidth * 2, [&] { ops::cuda::embedding_backward(dy, order, gradient); },
      [&] { ops::reference::embedding_backward(dy, ids, gradient); });
}

void gpu_order_tokens(benchmark::State& state) {
  if (skip(state)) return;
  const at::Tensor ids = uneven_ids(kTokens);
  for (auto _ : state) {
    for (int i = 0; i < kLaunches; ++i) benchmark::DoNotOptimize(ops::order_tokens(ids));
    ops::synchronize(at::kCUDA);
  }
}

struct Stream {
  at::Tensor stream = random({kTokens, kWidth}), branch = random({kTokens, kWidth}), x0 = random({kTokens, kWidth}),
             before = random({kTokens, kWidth}), y = random({kTokens, kWidth}), rstd = floats({kTokens}).add(1.0),
             a = floats({1}).add(0.9), b = floats({1}).add(0.1);
};

void gpu_residual_mix(benchmark::State& state) {
  if (skip(state)) return;
  Stream s;
  compare(state, kTokens * kWidth * 2 * 6, ops::cuda::residual_mix, ops::reference::residual_mix, s.stream, s.branch, s.x0, s.a,
          s.b, s.before, s.y, s.rstd, kEps);
}

void gpu_residual_mix_backward(benchmark::State& state) {
  if (skip(state)) return;
  Stream s;
  at::Tensor dx0 = random({kTokens, kWidth});
  const at::Tensor d_a = floats({1}), d_b = floats({1});
  const ops::NormGradient norm = {s.branch, s.y, s.rstd};
  compare(state, kTokens * kWidth * 2 * 8, ops::cuda::residual_mix_backward, ops::reference::residual_mix_backward, norm,
          s.stream, s.before, s.x0, s.a, s.b, dx0, true, d_a, d_b);
}

void gpu_smear(benchmark::State& state) {
  if (skip(state)) return;
  Stream s;
  at::Tensor opened = floats({kTokens});
  const at::Tensor before = random_ids(kTokens), gate = random({1, 24}), lambda = floats({1}).add(0.1);
  compare(state, kTokens * kWidth * 2 * 2, ops::cuda::smear, ops::reference::smear, s.x0, at::Tensor(), before, gate, lambda,
          s.y, opened);
}

void gpu_smear_backward(benchmark::State& state) {
  if (skip(state)) return;
  Stream s;
  const at::Tensor before = random_ids(kTokens), gate = random({1, 24}), lambda = floats({1}).add(0.1);
  const at::Tensor opened = floats({kTokens}).add(0.5), dy = random({kTokens, kWidth}), d_gate = floats({1, 24});
  compare(state, kTokens * kWidth * 2 * 3, ops::cuda::smear_backward, ops::reference::smear_backward, dy, s.x0, before, gate,
          lambda, opened, s.y, d_gate, floats({1}));
}

struct Values {
  at::Tensor qkv = random({kTokens, 3 * kHeads, kHeadDim}), h = random({kTokens, kWidth}), gate = random({kHeads, 12}),
             table = floats({kVocabulary, kWidth}), ids = uneven_ids(kTokens), g = floats({kTokens, kHeads}).add(1.0);
  at::Tensor v() const { return qkv.narrow(1, 2 * kHeads, kHeads); }
};

void gpu_value_embedding(benchmark::State& state) {
  if (skip(state)) return;
  Values values;
  compare(state, kTokens * kWidth * (2 * 2 + 4), ops::cuda::add_value_embedding, ops::reference::add_value_embedding,
          values.v(), values.h, values.gate, values.table, values.ids, values.g);
}

void gpu_value_embedding_backward(benchmark::State& state) {
  if (skip(state)) return;
  Values values;
  const ops::TokenOrder order = ops::order_tokens(values.ids);
  at::Tensor dh = random({kTokens, kWidth}), d_gate = floats({kHeads, 12}), d_table = floats({kVocabulary, kWidth});
  compare(
      state, kTokens * kWidth * 2,
      [&] {
        ops::cuda::add_value_embedding_backward(values.v(), values.h, values.gate, values.table, order, values.g, dh, d_gate,
                                                d_table);
      },
      [&] {
        ops::reference::add_value_embedding_backward(values.v(), values.h, values.gate, values.table, values.ids, values.g, dh,
                                                     d_gate, d_table);
      });
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

void gpu_normuon(benchmark::State& state, std::int64_t rows, std::int64_t columns) {
  if (skip(state)) return;
  ops::MatrixList matrices;
  std::vector<at::Tensor> moments;
  constexpr std::int64_t kCount = 12;
  for (std::int64_t i = 0; i < kCount; ++i) {
    const at::Tensor gradient = random({rows, columns}).to(at::kFloat);
    matrices.add(gradient, gradient, floats({rows, columns}), gradient.to(at::kBFloat16));
    moments.push_back(rows >= columns ? floats({rows, 1}) : floats({1, columns}));
  }
  compare(
      state, kCount * rows * columns * (3 * 4 + 4 * 2 + 2 * 2 + 2 * 4 + 2),
      [&] {
        const at::Tensor x = ops::cuda::normuon_directions(matrices, at::kBFloat16, 1.0, 0.95);
        ops::cuda::normuon_apply(matrices, moments, x, {.rate = 1e-6});
      },
      [&] {
        const at::Tensor x = ops::reference::normuon_directions(matrices, at::kBFloat16, 1.0, 0.95);
        ops::reference::normuon_apply(matrices, moments, x, {.rate = 1e-6});
      });
}
void gpu_normuon_tall(benchmark::State& state) { gpu_normuon(state, kHidden, kWidth); }
void gpu_normuon_wide(benchmark::State& state) { gpu_normuon(state, kWidth, kHidden); }

// Forward and backward; the rate is of floating-point operations, those of the keys that queries see.
void gpu_causal_attention(benchmark::State& state) {
  if (skip(state)) return;
  const std::int64_t window = state.range(0);
  ops::AttentionScope scope;
  if (window < kTime) scope.window = window;
  const at::Tensor q = random({kBatch, kTime, kHeads, kHeadDim}), k = random(q.sizes()), v = random(q.sizes());
  const at::Tensor dout = random(q.sizes());
  for (auto _ : state) {
    for (int i = 0; i < kLaunches; ++i) {
      const ops::AttentionForward forward = ops::causal_attention(q, k, v, scope);
      benchmark::DoNotOptimize(ops::causal_attention_backward(dout, q, k, v, forward, scope));
    }
    ops::synchronize(at::kCUDA);
  }
  const auto keys = static_cast<double>(window < kTime ? (window + 1) * (kTime - window) + window * (window + 1) / 2
                                                       : kTime * (kTime + 1) / 2);
  const double flops = 14.0 * kBatch * kHeads * keys * kHeadDim;  // 2 products forward, 5 backward
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
BENCHMARK(gpu_order_tokens)->UseRealTime();
NANOCHAT_GPU_BENCHMARK(gpu_residual_mix);
NANOCHAT_GPU_BENCHMARK(gpu_residual_mix_backward);
NANOCHAT_GPU_BENCHMARK(gpu_smear);
NANOCHAT_GPU_BENCHMARK(gpu_smear_backward);
NANOCHAT_GPU_BENCHMARK(gpu_value_embedding);
NANOCHAT_GPU_BENCHMARK(gpu_value_embedding_backward);
NANOCHAT_GPU_BENCHMARK(gpu_normuon_tall);
NANOCHAT_GPU_BENCHMARK(gpu_normuon_wide);
NANOCHAT_GPU_BENCHMARK(gpu_softcap_cross_entropy);
NANOCHAT_GPU_BENCHMARK(gpu_adamw);
NANOCHAT_GPU_BENCHMARK(gpu_muon_directions);
// Windows by cuDNN, or with NANOCHAT_WINDOW_ATTENTION=flash by FlashAttention.
BENCHMARK(gpu_causal_attention)->ArgName("window")->Arg(512)->Arg(kTime)->UseRealTime();

}  // namespace
}  // namespace nanochat::benchmarks
