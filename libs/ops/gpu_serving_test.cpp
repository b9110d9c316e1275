// The operations for serving on a GPU, against the reference and the CPU. Skipped with a message where no GPU is.

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "core/random.h"
#include "ops/cuda/backend.h"
#include "ops/device.h"
#include "ops/device_graph.h"
#include "ops/embedding.h"
#include "ops/linear.h"
#include "ops/paged_attention.h"
#include "ops/relu_squared.h"
#include "ops/rope.h"
#include "ops/testing.h"

namespace nanochat::ops {
namespace {

using testing::any_nan;
using testing::random_tensor;
using testing::relative_error;
using testing::tolerance;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

at::Tensor on_gpu(const at::Tensor& x) { return x.to(at::kCUDA); }
at::Tensor exact(const at::Tensor& x) { return x.to(at::kFloat); }

class GpuServing : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  void SetUp() override {
    if (cuda_devices() == 0) GTEST_SKIP() << (cuda_built() ? "no GPU on this machine" : "a build without CUDA");
  }
  at::ScalarType dtype_ = GetParam();
  // Weights of values are rounded to bfloat16 before they are multiplied, and results once more.
  double bound_ = dtype_ == at::kFloat ? 1e-5 : 2.0 / 128;
};

struct CacheShape {
  std::int64_t n_head, n_kv_head, d, block_size;
};
using Lengths = std::vector<std::pair<std::int64_t, std::int64_t>>;  // start and tokens of each sequence

// Sequences in shuffled blocks; what no sequence holds is NaN.
struct PagedCase {
  at::Tensor q, keys, values;  // on the CPU
  PagedBatch batch;

  PagedCase(const CacheShape& s, at::ScalarType dtype, const Lengths& lengths, std::uint64_t seed = 5) {
    std::int64_t blocks = 3, tokens = 0;
    for (const auto& [start, n] : lengths) {
      blocks += (start + n + s.block_size - 1) / s.block_size;
      tokens += n;
    }
    std::vector<std::int32_t> order(static_cast<std::size_t>(blocks));
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int32_t>(i);
    Rng(seed).shuffle(order);
    q = random_tensor({tokens, s.n_head, s.d}, dtype, seed + 1);
    keys = random_tensor({blocks, s.n_kv_head, s.block_size, s.d}, dtype, seed + 2);
    values = random_tensor(keys.sizes(), dtype, seed + 3);
    for (const auto& [start, n] : lengths) {
      PagedBatch::Sequence sequence{start, n, {}};
      const std::int64_t end = start + n, held = (end + s.block_size - 1) / s.block_size;
      for (std::int64_t i = 0; i < held; ++i) {
        sequence.blocks.push_back(order.back());
        order.pop_back();
      }
      const std::int64_t used = end - (held - 1) * s.block_size;
      for (at::Tensor* slab : {&keys, &values}) {
        slab->select(0, sequence.blocks.back()).narrow(1, used, s.block_size - used).fill_(kNan);
      }
      batch.sequences.push_back(std::move(sequence));
    }
    for (const std::int32_t block : order) {
      keys.select(0, block).fill_(kNan);
      values.select(0, block).fill_(kNan);
    }
  }

  at::Tensor expected() const { return paged_attention_reference(exact(q), exact(keys), exact(values), batch); }
  at::Tensor got(const PagedOptions& options = {}, const AttentionScope& scope = {}) const {
    const at::Tensor gpu_keys = on_gpu(keys);
    return paged_attention(on_gpu(q), gpu_keys, on_gpu(values), DevicePagedBatch(batch, gpu_keys, q.size(1), options), scope)
        .cpu();
  }
};

const Lengths kDecodes = {{0, 1}, {40, 1}, {63, 1}, {64, 1}, {65, 1}, {511, 1}, {1000, 1}, {15, 1}, {4095, 1}, {2048, 1}};
const Lengths kMixed = {{0, 1},    {40, 1}, {0, 37}, {5, 20},     {130, 1}, {0, 300},
                        {700, 65}, {16, 1}, {30, 7}, {3000, 129}, {999, 1}};

// Paged attention of caches of several shapes, which make_case(shape, lengths) makes, against the reference.
void expect_reference(const std::function<PagedCase(const CacheShape&, const Lengths&)>& make_case, double bound) {
  for (const CacheShape& s : {CacheShape{4, 4, 128, 16}, CacheShape{4, 2, 64, 16}, CacheShape{8, 1, 128, 5},
                              CacheShape{6, 2, 64, 32}, CacheShape{3, 3, 64, 1}}) {
    for (const Lengths& lengths : {kDecodes, kMixed}) {
      const PagedCase c = make_case(s, lengths);
      const at::Tensor expected = c.expected();
      for (const PagedOptions& options :
           {PagedOptions{}, PagedOptions{.batch_invariant = true}, PagedOptions{.split = 64}, PagedOptions{.split = 4096}}) {
        const at::Tensor got = c.got(options);
        EXPECT_LT(relative_error(got, expected), bound) << s.n_head << "/" << s.n_kv_head << " heads of " << s.d << ", split "
                                                        << options.split << (options.batch_invariant ? " invariant" : "");
        EXPECT_FALSE(any_nan(got));
      }
      EXPECT_TRUE(paged_attention(on_gpu(c.q), on_gpu(c.keys), on_gpu(c.values), c.batch).cpu().equal(c.got()));
    }
  }
}

TEST_P(GpuServing, PagedAttentionOfDecodesAndPrompts) {
  expect_reference([&](const CacheShape& s, const Lengths& lengths) { return PagedCase(s, dtype_, lengths); }, bound_);
}

TEST_P(GpuServing, PagedAttentionRepeatsBitForBit) {
  const PagedCase c({4, 2, 128, 16}, dtype_, kMixed);
  const at::Tensor keys = on_gpu(c.keys), values = on_gpu(c.values), q = on_gpu(c.q);
  const DevicePagedBatch batch(c.batch, keys, 4, {.split = 64});
  const at::Tensor first = paged_attention(q, keys, values, batch);
  for (int i = 0; i < 50; ++i) EXPECT_TRUE(paged_attention(q, keys, values, batch).equal(first)) << i;
}

TEST_P(GpuServing, PagedAttentionIsBatchInvariant) {
  const PagedCase c({4, 2, 128, 16}, dtype_, {{0, 37}, {5, 20}, {130, 1}, {600, 3}});
  const at::Tensor together = c.got({.batch_invariant = true}), keys = on_gpu(c.keys), values = on_gpu(c.values);
  std::int64_t row = 0;
  for (const PagedBatch::Sequence& sequence : c.batch.sequences) {
    for (std::int64_t t = 0; t < sequence.tokens; ++t, ++row) {
      const PagedBatch one{{{sequence.start + t, 1, sequence.blocks}}};
      const at::Tensor alone = paged_attention(on_gpu(c.q.narrow(0, row, 1)), keys, values,
                                               DevicePagedBatch(one, keys, 4, {.batch_invariant = true}));
      EXPECT_TRUE(alone.cpu().equal(together.narrow(0, row, 1))) << row;
    }
  }
  // Decodes with a split of one size, too, and the kernels for prompts wherever a prompt is cut.
  const PagedCase decodes({4, 2, 128, 16}, dtype_, kDecodes);
  const at::Tensor all = decodes.got({.split = 128});
  for (std::size_t i = 0; i < decodes.batch.sequences.size(); ++i) {
    const at::Tensor gpu_keys = on_gpu(decodes.keys);
    const PagedBatch one{{decodes.batch.sequences[i]}};
    const auto n = static_cast<std::int64_t>(i);
    EXPECT_TRUE(paged_attention(on_gpu(decodes.q.narrow(0, n, 1)), gpu_keys, on_gpu(decodes.values),
                                DevicePagedBatch(one, gpu_keys, 4, {.split = 128}))
                    .cpu()
                    .equal(all.narrow(0, n, 1)));
  }
}

TEST_P(GpuServing, PagedAttentionOverAWindow) {
  const CacheShape s{4, 2, 64, 16};
  const PagedCase c(s, dtype_, {{0, 90}, {300, 1}, {128, 70}, {5, 3}, {63, 1}, {64, 1}});
  for (const std::int64_t window : {0, 1, 50, 64, 128, 1000}) {
    // Each token by itself, from the first key that it sees.
    std::vector<at::Tensor> parts;
    std::int64_t row = 0;
    for (const PagedBatch::Sequence& sequence : c.batch.sequences) {
      for (std::int64_t t = 0; t < sequence.tokens; ++t, ++row) {
        const std::int64_t position = sequence.start + t, first = std::max<std::int64_t>(0, position - window);
        const auto gather = [&](const at::Tensor& slab) {
          std::vector<at::Tensor> rows;
          for (std::int64_t p = first; p <= position; ++p) {
            rows.push_back(
                slab.select(0, sequence.blocks[static_cast<std::size_t>(p / s.block_size)]).select(1, p % s.block_size));
          }
          return exact(at::stack(rows));  // (keys, NKV, D)
        };
        const at::Tensor k = gather(c.keys).repeat_interleave(2, 1), v = gather(c.values).repeat_interleave(2, 1);
        const at::Tensor scores = k.mul(exact(c.q.narrow(0, row, 1))).sum(2).mul(1.0 / std::sqrt(static_cast<double>(s.d)));
        parts.push_back(scores.softmax(0).unsqueeze(2).mul(v).sum(0, /*keepdim=*/true));
      }
    }
    const at::Tensor expected = at::cat(parts);
    for (const PagedOptions& options : {PagedOptions{}, PagedOptions{.batch_invariant = true}, PagedOptions{.split = 64}}) {
      EXPECT_LT(relative_error(c.got(options, {.window = window}), expected), bound_) << window;
    }
  }
}

TEST_P(GpuServing, PagedStoreAndFusedRope) {
  for (const CacheShape& s : {CacheShape{4, 2, 128, 16}, CacheShape{3, 3, 64, 5}}) {
    const PagedCase c(s, dtype_, kMixed);
    const std::int64_t n = c.batch.tokens(), heads = s.n_head + 2 * s.n_kv_head;
    const at::Tensor qkv = random_tensor({n, heads * s.d}, dtype_, 9);
    const RopeTable table = make_rope_table(4096, s.d, 10000.0, false), gpu_table{on_gpu(table.cos), on_gpu(table.sin)};
    const at::Tensor gpu_qkv = on_gpu(qkv), rows = gpu_qkv.view({n, heads, s.d});
    at::Tensor keys = on_gpu(c.keys), values = on_gpu(c.values), fused_keys = keys.clone(), fused_values = values.clone();
    const DevicePagedBatch batch(c.batch, keys, s.n_head);

    at::Tensor q = on_gpu(at::empty({n, 1, s.n_head, s.d}, dtype_)), k = on_gpu(at::empty({n, 1, s.n_kv_head, s.d}, dtype_)),
               none;
    rope_qk_norm(gpu_qkv.view({n, 1, heads * s.d}), gpu_table, batch.positions().to(at::kLong).cpu(), q, k, none, 1e-6);
    paged_store(k.select(1, 0), rows.narrow(1, s.n_head + s.n_kv_head, s.n_kv_head), batch, keys, values);
    at::Tensor fused_q = on_gpu(at::full({n, s.n_head, s.d}, kNan, dtype_));
    rope_qk_norm_store(gpu_qkv, gpu_table, batch, fused_q, fused_keys, fused_values, 1e-6);
    EXPECT_TRUE(fused_q.equal(q.select(1, 0)));

    at::Tensor host_keys = c.keys.clone(), host_values = c.values.clone();
    paged_store(k.select(1, 0).cpu(), qkv.view({n, heads, s.d}).narrow(1, s.n_head + s.n_kv_head, s.n_kv_head), c.batch,
                host_keys, host_values);
    const auto same = [](const at::Tensor& a, const at::Tensor& b) {
      return a.cpu().nan_to_num(7.0).equal(b.cpu().nan_to_num(7.0));
    };
    EXPECT_TRUE(same(keys, host_keys));
    EXPECT_TRUE(same(values, host_values));
    EXPECT_TRUE(same(fused_keys, host_keys));
    EXPECT_TRUE(same(fused_values, host_values));
    // Through the interface for both devices.
    at::Tensor other_keys = on_gpu(c.keys), other_values = on_gpu(c.values);
    paged_store(k.select(1, 0), rows.narrow(1, s.n_head + s.n_kv_head, s.n_kv_head), c.batch, other_keys, other_values);
    EXPECT_TRUE(same(other_keys, host_keys));
    EXPECT_TRUE(same(other_values, host_values));
  }
}

TEST_P(GpuServing, FusedDecodesAreRopeStoreAndAttention) {
  for (const CacheShape& s : {CacheShape{4, 4, 128, 16}, CacheShape{4, 2, 64, 16}, CacheShape{16, 1, 128, 5},
                              CacheShape{12, 2, 64, 32}, CacheShape{3, 3, 128, 1}, CacheShape{60, 60, 64, 16}}) {
    const PagedCase c(s, dtype_, kDecodes);
    const std::int64_t n = c.batch.tokens(), heads = s.n_head + 2 * s.n_kv_head;
    const at::Tensor keys = on_gpu(c.keys), values = on_gpu(c.values);
    const DevicePagedBatch batch(c.batch, keys, s.n_head);
    const DevicePagedBatch invariant(c.batch, keys, s.n_head, {.batch_invariant = true});
    EXPECT_FALSE(invariant.fuses_decodes());
    EXPECT_FALSE(DevicePagedBatch(c.batch, keys, s.n_head, {.fuse_decodes = false}).fuses_decodes());
    if (dtype_ == at::kFloat) {
      EXPECT_FALSE(batch.fuses_decodes());
      continue;
    }
    if (!batch.fuses_decodes()) GTEST_SKIP() << "a GPU without clusters of thread blocks";
    const at::Tensor qkv = on_gpu(random_tensor({n, heads * s.d}, dtype_, 9));
    const RopeTable host_table = make_rope_table(4096, s.d, 10000.0, false);
    const RopeTable table{on_gpu(host_table.cos), on_gpu(host_table.sin)};
    for (const AttentionScope& scope : {AttentionScope{}, AttentionScope{.window = 0}, AttentionScope{.window = 50},
                                        AttentionScope{.window = 1000, .scale = 1.44}}) {
      at::Tensor q = on_gpu(at::full({n, s.n_head, s.d}, kNan, dtype_)), out = q.clone();
      at::Tensor expected_keys = keys.clone(), expected_values = values.clone(), got_keys = keys.clone(),
                 got_values = values.clone();
      rope_qk_norm_store(qkv, table, batch, q, expected_keys, expected_values, 1e-6);
      const at::Tensor expected = paged_attention(q, expected_keys, expected_values, batch, scope);
      rope_paged_decode(qkv, table, batch, got_keys, got_values, scope, 1e-6, out);
      const std::string name = std::to_string(s.n_head) + "/" + std::to_string(s.n_kv_head) + " heads of " +
                               std::to_string(s.d) + ", window " + std::to_string(scope.window.value_or(-1));
      EXPECT_FALSE(any_nan(out)) << name;
      EXPECT_LT(relative_error(out.cpu(), expected.cpu()), bound_) << name;
      // What is not new is NaN or as it was.
      EXPECT_LT(relative_error(got_keys.cpu().nan_to_num(7.0), expected_keys.cpu().nan_to_num(7.0)), tolerance(dtype_)) << name;
      EXPECT_TRUE(got_values.cpu().nan_to_num(7.0).equal(expected_values.cpu().nan_to_num(7.0))) << name;
      // Again, over what the first call has written: bit for bit the same.
      for (int i = 0; i < 20; ++i) {
        at::Tensor again = on_gpu(at::full({n, s.n_head, s.d}, kNan, dtype_));
        rope_paged_decode(qkv, table, batch, got_keys, got_values, scope, 1e-6, again);
        EXPECT_TRUE(again.equal(out)) << name;
      }
    }
  }
}

TEST_P(GpuServing, FusedDecodesApplyTheNormBeforeTheProduct) {
  if (dtype_ == at::kFloat) GTEST_SKIP() << "bfloat16 alone";
  constexpr double kEps = 1e-2;  // large, so that it matters
  const CacheShape s{4, 2, 128, 16};
  const PagedCase c(s, dtype_, kDecodes);
  const std::int64_t n = c.batch.tokens();
  const at::Tensor keys = on_gpu(c.keys), values = on_gpu(c.values);
  const DevicePagedBatch batch(c.batch, keys, s.n_head);
  if (!batch.fuses_decodes()) GTEST_SKIP() << "a GPU without clusters of thread blocks";
  const RopeTable host_table = make_rope_table(4096, s.d, 10000.0, false);
  const RopeTable table{on_gpu(host_table.cos), on_gpu(host_table.sin)};
  const at::Tensor stream = on_gpu(random_tensor({n, 1280}, dtype_, 8, 3.0));
  const at::Tensor qkv = on_gpu(random_tensor({n, (s.n_head + 2 * s.n_kv_head) * s.d}, dtype_, 9));
  const at::Tensor factor = exact(stream).square().mean(1, /*keepdim=*/true).add(kEps).rsqrt();
  const auto decode = [&](const at::Tensor& product, const at::Tensor& rows) {
    at::Tensor new_keys = keys.clone(), new_values = values.clone(), out = on_gpu(at::full({n, s.n_head, s.d}, kNan, dtype_));
    rope_paged_decode(product, table, batch, new_keys, new_values, {}, kEps, out, rows);
    return std::vector<at::Tensor>{out.cpu(), new_keys.cpu().nan_to_num(7.0), new_values.cpu().nan_to_num(7.0)};
  };
  const std::vector<at::Tensor> expected = decode(exact(qkv).mul(factor).to(dtype_), {});
  const std::vector<at::Tensor> got = decode(qkv, stream);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_LT(relative_error(got[i], exact(expected[i])), bound_) << i;
  EXPECT_GT(relative_error(decode(qkv, {})[2], exact(expected[2])), bound_);
}

TEST_P(GpuServing, ReluSquaredAppliesTheNormBeforeTheProduct) {
  constexpr double kEps = 1e-2;
  for (const auto& [width, hidden] : {std::pair<std::int64_t, std::int64_t>{1280, 5120}, {768, 3072}, {20, 33}}) {
    const at::Tensor x = random_tensor({7, width}, dtype_, 1, 0.3), y = random_tensor({7, hidden}, dtype_, 2, 3.0);
    at::Tensor got = on_gpu(y);
    relu_squared_normalised(on_gpu(x), got, kEps);
    const at::Tensor square = x.to(at::kDouble).square().mean(1, /*keepdim=*/true).add(kEps).reciprocal();
    const at::Tensor expected = y.to(at::kDouble).clamp_min(0.0).square().mul(square);
    EXPECT_LT(relative_error(got.cpu(), expected), dtype_ == at::kFloat ? 1e-6 : tolerance(dtype_)) << width;
  }
}

TEST_P(GpuServing, FusedDecodesOfEveryLengthAndNumber) {
  const CacheShape s{4, 2, 128, 16};
  if (dtype_ == at::kFloat) GTEST_SKIP() << "bfloat16 alone";
  const RopeTable host_table = make_rope_table(4096, s.d, 10000.0, false);
  const RopeTable table{on_gpu(host_table.cos), on_gpu(host_table.sin)};
  for (const std::int64_t count : {1, 2, 20, 40, 60, 230, 1700}) {  // eight to one parts; many sequences for each block
    Lengths lengths;
    for (std::int64_t i = 0; i < count; ++i) lengths.push_back({i < 40 ? (i * 37 + count) % 700 : i % 300, 1});
    const PagedCase c(s, dtype_, lengths, static_cast<std::uint64_t>(count));
    at::Tensor keys = on_gpu(c.keys), values = on_gpu(c.values);
    DevicePagedBatch room(count + 3, 1024, keys, s.n_head);
    if (!room.fuses_decodes()) GTEST_SKIP() << "a GPU without clusters of thread blocks";
    const at::Tensor qkv = on_gpu(random_tensor({count + 3, (s.n_head + 2 * s.n_kv_head) * s.d}, dtype_, 9));
    at::Tensor q = on_gpu(at::full({count + 3, s.n_head, s.d}, kNan, dtype_)), out = on_gpu(at::full(q.sizes(), 7.0, dtype_));
    at::Tensor expected_keys = keys.clone(), expected_values = values.clone();
    room.assign(c.batch);
    DeviceGraph graph(keys.device(), [&] { rope_paged_decode(qkv, table, room, keys, values, {}, 1e-6, out); });
    graph.replay();
    const DevicePagedBatch batch(c.batch, keys, s.n_head);
    at::Tensor some = q.narrow(0, 0, count);
    rope_qk_norm_store(qkv.narrow(0, 0, count), table, batch, some, expected_keys, expected_values, 1e-6);
    const at::Tensor expected = paged_attention(some, expected_keys, expected_values, batch);
    for (std::int64_t i = 0; i < count; ++i) {
      EXPECT_LT(relative_error(out[i].cpu(), expected[i].cpu()), bound_) << count << " sequences, " << lengths[i].first;
    }
    EXPECT_TRUE(out.narrow(0, count, 3).eq(7.0).all().item<bool>());
    EXPECT_TRUE(values.cpu().nan_to_num(7.0).equal(expected_values.cpu().nan_to_num(7.0)));
  }
}

TEST_P(GpuServing, ARecordedDecodeTakesOneBatchAfterTheOther) {
  const CacheShape s{4, 2, 64, 16};
  const PagedCase c(s, dtype_, kDecodes);
  const at::Tensor keys = on_gpu(c.keys), values = on_gpu(c.values);
  constexpr std::int64_t kRoom = 12;
  DevicePagedBatch room(kRoom, 4096, keys, s.n_head, {.split = 256});
  const at::Tensor q = on_gpu(at::full({kRoom, s.n_head, s.d}, kNan, dtype_)), out = q.clone();
  DeviceGraph graph(keys.device(), [&] { out.copy_(paged_attention(q, keys, values, room)); });
  for (const std::int64_t count : {1, 3, 10, 2}) {
    PagedBatch batch;
    for (std::int64_t i = 0; i < count; ++i) batch.sequences.push_back(c.batch.sequences[static_cast<std::size_t>(9 - i)]);
    const at::Tensor some = c.q.narrow(0, 10 - count, count).flip(0);
    q.narrow(0, 0, count).copy_(some);
    room.assign(batch);
    graph.replay();
    const at::Tensor expected = paged_attention(on_gpu(some), keys, values,
                                                DevicePagedBatch(batch, keys, s.n_head, {.split = 256}));
    EXPECT_TRUE(out.narrow(0, 0, count).equal(expected)) << count;
    EXPECT_LT(relative_error(expected.cpu(), paged_attention_reference(exact(some), exact(c.keys), exact(c.values), batch)),
              bound_);
    // Tokens that are not there are stored nowhere.
    const at::Tensor one = on_gpu(random_tensor({kRoom, s.n_kv_head, s.d}, dtype_, 4));
    at::Tensor stored = at::full_like(keys, 7.0), other = stored.clone();
    paged_store(one, one, room, stored, other);
    EXPECT_EQ(stored.ne(7.0).sum().item<std::int64_t>(), count * s.n_kv_head * s.d);
    EXPECT_TRUE(stored.equal(other));
  }
  EXPECT_THROW(room.assign({{{0, 2, c.batch.sequences[0].blocks}}}), c10::Error);
}

TEST_P(GpuServing, RefusesAPositionWithoutABlockOrAnAngle) {
  PagedCase c({2, 2, 64, 16}, dtype_, {{0, 5}});
  at::Tensor keys = on_gpu(c.keys), values = on_gpu(c.values), q = on_gpu(c.q);
  const RopeTable table = make_rope_table(4, 64, 10000.0, false), gpu_table{on_gpu(table.cos), on_gpu(table.sin)};
  EXPECT_THROW(rope_qk_norm_store(on_gpu(random_tensor({5, 6 * 64}, dtype_, 1)), gpu_table, DevicePagedBatch(c.batch, keys, 2),
                                  q, keys, values, 1e-6),
               c10::Error);
  c.batch.sequences[0].start = 16;
  EXPECT_THROW(DevicePagedBatch(c.batch, keys, 2), c10::Error);
  c.batch.sequences[0].start = 0;
  EXPECT_THROW(DevicePagedBatch(c.batch, keys, 2, {.split = 65}), c10::Error);
  c.batch.sequences[0].blocks[0] = 99;
  EXPECT_THROW(DevicePagedBatch(c.batch, keys, 2), c10::Error);
}

TEST_P(GpuServing, LinearRowsAreExactAndBatchInvariant) {
  struct Case {
    std::int64_t m, k;
  };
  // On a GPU with 132 multiprocessors: one to three tiles of columns for each block; many, one after the other; slices of the
  // inner dimension with one group of columns for a block and with several.
  for (const Case& c : {Case{96, 1280}, Case{13, 136}, Case{1280, 5120}, Case{2000, 64}, Case{40, 8}, Case{3840, 1280},
                        Case{5120, 1280}, Case{8000, 264}, Case{40000, 128}, Case{3000, 2560}, Case{500, 9000}}) {
    const at::Tensor w = random_tensor({c.m, c.k}, dtype_, 1), gpu_w = on_gpu(w);
    for (const std::int64_t rows : {1, 2, 7, 8, 9, 16, 17, 32}) {
      // Rows that lie apart, in x and in y.
      const at::Tensor wide = random_tensor({rows, c.k + 16}, dtype_, static_cast<std::uint64_t>(rows)),
                       x = wide.narrow(1, 0, c.k);
      const at::Tensor gpu_x = on_gpu(wide).narrow(1, 0, c.k);
      const at::Tensor result = on_gpu(at::full({rows, c.m + 3}, 7.0, dtype_));
      at::Tensor y = result.narrow(1, 0, c.m);
      ASSERT_TRUE(cuda::linear_rows(gpu_x, gpu_w, y, {}));
      const at::Tensor expected = x.to(at::kDouble).matmul(w.to(at::kDouble).t());
      EXPECT_LT(relative_error(y.cpu(), expected), dtype_ == at::kFloat ? 1e-5 : tolerance(dtype_)) << rows << " " << c.m;
      EXPECT_TRUE(result.narrow(1, c.m, 3).eq(7.0).all().item<bool>());
      for (const std::int64_t row : {std::int64_t{0}, rows / 2, rows - 1}) {
        at::Tensor alone = on_gpu(at::empty({1, c.m}, dtype_));
        linear_rows(gpu_x.narrow(0, row, 1), gpu_w, alone);
        EXPECT_TRUE(alone.equal(y.narrow(0, row, 1))) << rows << " " << row;
      }
    }
    // What no kernel takes goes to the library: rows that do not begin at 16 bytes.
    const at::Tensor odd = on_gpu(random_tensor({3, c.k + 1}, dtype_, 2)).narrow(1, 1, c.k);
    at::Tensor y = on_gpu(at::empty({3, c.m}, dtype_));
    EXPECT_FALSE(cuda::linear_rows(odd, gpu_w, y, {}));
    linear_rows(odd, gpu_w, y);
    EXPECT_LT(relative_error(y.cpu(), odd.cpu().to(at::kDouble).matmul(w.to(at::kDouble).t())),
              dtype_ == at::kFloat ? 1e-5 : tolerance(dtype_));
  }
}

TEST_P(GpuServing, LinearRowsWithWhatStandsBeforeAndBehind) {
  constexpr double kEps = 1e-5;
  struct Case {
    std::int64_t rows, m, k;
  };
  for (const auto& [rows, m, k] : {Case{1, 200, 1280}, Case{8, 200, 1280}, Case{21, 200, 1280}, Case{64, 200, 1280},
                                   Case{1, 3000, 2560}, Case{12, 3000, 2560}, Case{32, 12000, 72}}) {
    const at::Tensor x = random_tensor({rows, k}, dtype_, 1, 3.0), w = random_tensor({m, k}, dtype_, 2);
    const at::Tensor before = random_tensor({rows, m}, dtype_, 3, 20.0), wide = x.to(at::kDouble);
    for (int kind = 0; kind < 8; ++kind) {
      const LinearFusion fusion{
          .normalise = (kind & 1) != 0, .eps = kEps, .relu_squared = (kind & 2) != 0, .add = (kind & 4) != 0};
      at::Tensor expected = wide.matmul(w.to(at::kDouble).t());
      if (fusion.normalise) expected = expected.mul(wide.square().mean(1, /*keepdim=*/true).add(kEps).rsqrt());
      if (fusion.relu_squared) expected = expected.clamp_min(0.0).square();
      if (fusion.add) expected = expected.add(before.to(at::kDouble));
      at::Tensor y = on_gpu(before), alone = on_gpu(before.narrow(0, rows / 2, 1)), host = before.clone();
      linear_rows(on_gpu(x), on_gpu(w), y, fusion);
      EXPECT_LT(relative_error(y.cpu(), expected), dtype_ == at::kFloat ? 1e-5 : tolerance(dtype_)) << rows << " " << kind;
      linear_rows(on_gpu(x.narrow(0, rows / 2, 1)), on_gpu(w), alone, fusion);
      EXPECT_TRUE(alone.equal(y.narrow(0, rows / 2, 1))) << rows << " " << kind;
      linear_rows(x, w, host, fusion);
      EXPECT_LT(relative_error(host, expected), dtype_ == at::kFloat ? 1e-5 : 3 * tolerance(dtype_)) << rows << " " << kind;
    }
  }
}

TEST_P(GpuServing, FusedProductsAreBatchInvariantHoweverManyRowsThereAre) {
  constexpr std::int64_t kRows = 150;
  const at::Tensor x = on_gpu(random_tensor({kRows, 256}, dtype_, 1)), w = on_gpu(random_tensor({72, 256}, dtype_, 2));
  const LinearFusion fusion{.normalise = true, .eps = 1e-6, .relu_squared = true};
  at::Tensor y = on_gpu(at::full({kRows, 72}, kNan, dtype_));
  linear_rows(x, w, y, fusion);
  EXPECT_FALSE(any_nan(y));
  for (const std::int64_t row : {0, 1, 63, 64, 77, 128, 149}) {
    at::Tensor alone = on_gpu(at::full({1, 72}, kNan, dtype_));
    linear_rows(x.narrow(0, row, 1), w, alone, fusion);
    EXPECT_TRUE(alone.equal(y.narrow(0, row, 1))) << row;
  }
}

TEST_P(GpuServing, EmbeddingsTakeTokensFromTheDevice) {
  constexpr double kEps = 1e-6;
  for (const std::int64_t width : {768, 1280, 20, 5120}) {
    const at::Tensor table = random_tensor({50, width}, dtype_, 1, 2.0);
    const at::Tensor inputs = at::tensor({3, -1, -3, 49, -2, 50, -5, -4}, at::kInt),
                     drawn = at::tensor({7, 8, 0, -1}, at::kInt);
    at::Tensor y = on_gpu(at::full({8, width}, 7.0, dtype_)), ids = on_gpu(at::full({8}, 77, at::kInt));
    embedding_rms_norm(on_gpu(table), on_gpu(inputs), on_gpu(drawn), ids, y, kEps);
    EXPECT_TRUE(ids.cpu().equal(at::tensor({3, 7, 0, 49, 8, 50, -1, -1}, at::kInt)));
    const at::Tensor rows = exact(table).index_select(0, at::tensor({3, 7, 0, 49, 8}, at::kLong));
    const at::Tensor expected = rows.mul(rows.square().mean(1, /*keepdim=*/true).add(kEps).rsqrt());
    EXPECT_LT(relative_error(y.cpu().narrow(0, 0, 5), expected), dtype_ == at::kFloat ? 1e-6 : tolerance(dtype_)) << width;
    EXPECT_TRUE(y.cpu().narrow(0, 5, 3).isnan().all().item<bool>());  // ids out of range, and a draw that failed
  }
}

INSTANTIATE_TEST_SUITE_P(Types, GpuServing, ::testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& tested) { return std::string(at::toString(tested.param)); });

// Caches of E4M3. Every such number is one of bfloat16, too, so that kernels for caches of that are a second reference.
class GpuFp8Cache : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda_devices() == 0) GTEST_SKIP() << (cuda_built() ? "no GPU on this machine" : "a build without CUDA");
    if (!has_fp8_cache(at::Device(at::kCUDA, 0))) GTEST_SKIP() << "a GPU of compute capability below 8.9";
  }
  static PagedCase fp8_case(const CacheShape& shape, const Lengths& lengths, std::uint64_t seed = 5) {
    PagedCase c(shape, at::kBFloat16, lengths, seed);
    c.keys = c.keys.to(at::kFloat8_e4m3fn);
    c.values = c.values.to(at::kFloat8_e4m3fn);
    return c;
  }
  static constexpr double kBound = 1.0 / 128;  // results are rounded to bfloat16, weights to half precision
};

// Which share of the numbers differ, of NaN those that are not NaN in both.
double share_of_others(const at::Tensor& a, const at::Tensor& b) {
  return exact(a.cpu()).nan_to_num(7.0).ne(exact(b.cpu()).nan_to_num(7.0)).to(at::kDouble).mean().item<double>();
}

TEST_F(GpuFp8Cache, AttentionOfDecodesAndPrompts) {
  expect_reference([](const CacheShape& s, const Lengths& lengths) { return fp8_case(s, lengths); }, kBound);
}

TEST_F(GpuFp8Cache, AttentionIsThatOfABFloat16CacheOfTheSameNumbers) {
  const PagedCase c = fp8_case({4, 2, 64, 16}, {{0, 90}, {300, 1}, {128, 70}, {5, 3}, {63, 1}, {64, 1}});
  PagedCase wide = c;
  wide.keys = exact(c.keys).to(at::kBFloat16);
  wide.values = exact(c.values).to(at::kBFloat16);
  for (const std::int64_t window : {0, 1, 50, 64, 128, 1000}) {
    for (const PagedOptions& options : {PagedOptions{}, PagedOptions{.batch_invariant = true}, PagedOptions{.split = 64}}) {
      const AttentionScope scope{.window = window, .scale = 1.2};
      EXPECT_LT(relative_error(c.got(options, scope), exact(wide.got(options, scope))), 2.0 / 128) << window;
    }
  }
}

TEST_F(GpuFp8Cache, AttentionIsBatchInvariantAndRepeats) {
  const PagedCase c = fp8_case({4, 2, 128, 16}, {{0, 37}, {5, 20}, {130, 1}, {600, 3}});
  const at::Tensor together = c.got({.batch_invariant = true}), keys = on_gpu(c.keys), values = on_gpu(c.values);
  EXPECT_TRUE(c.got({.batch_invariant = true}).equal(together));
  std::int64_t row = 0;
  for (const PagedBatch::Sequence& sequence : c.batch.sequences) {
    for (std::int64_t t = 0; t < sequence.tokens; ++t, ++row) {
      const PagedBatch one{{{sequence.start + t, 1, sequence.blocks}}};
      const at::Tensor alone = paged_attention(on_gpu(c.q.narrow(0, row, 1)), keys, values,
                                               DevicePagedBatch(one, keys, 4, {.batch_invariant = true}));
      EXPECT_TRUE(alone.cpu().equal(together.narrow(0, row, 1))) << row;
    }
  }
}

TEST_F(GpuFp8Cache, StoresRoundToTheNearestAndSaturate) {
  for (const CacheShape& s : {CacheShape{4, 2, 128, 16}, CacheShape{3, 3, 64, 5}}) {
    const PagedCase c = fp8_case(s, kMixed);
    const std::int64_t n = c.batch.tokens(), heads = s.n_head + 2 * s.n_kv_head;
    at::Tensor qkv = random_tensor({n, heads * s.d}, at::kBFloat16, 9);
    // Values of all magnitudes, up to some that are too large and some that become zero.
    const at::Tensor values_of_qkv = qkv.view({n, heads, s.d}).narrow(1, s.n_head + s.n_kv_head, s.n_kv_head);
    values_of_qkv.mul_(random_tensor(values_of_qkv.sizes(), at::kFloat, 10, 4.0).exp().to(at::kBFloat16));
    ASSERT_TRUE(values_of_qkv.abs().gt(464.0).any().item<bool>());
    const RopeTable table = make_rope_table(4096, s.d, 10000.0, false), gpu_table{on_gpu(table.cos), on_gpu(table.sin)};
    const at::Tensor gpu_qkv = on_gpu(qkv), rows = gpu_qkv.view({n, heads, s.d});
    at::Tensor keys = on_gpu(c.keys), values = on_gpu(c.values), fused_keys = keys.clone(), fused_values = values.clone();
    const DevicePagedBatch batch(c.batch, keys, s.n_head);
    at::Tensor q = on_gpu(at::empty({n, 1, s.n_head, s.d}, at::kBFloat16)), none;
    at::Tensor k = on_gpu(at::empty({n, 1, s.n_kv_head, s.d}, at::kBFloat16));
    rope_qk_norm(gpu_qkv.view({n, 1, heads * s.d}), gpu_table, batch.positions().to(at::kLong).cpu(), q, k, none, 1e-6);
    paged_store(k.select(1, 0), rows.narrow(1, s.n_head + s.n_kv_head, s.n_kv_head), batch, keys, values);
    at::Tensor fused_q = on_gpu(at::full({n, s.n_head, s.d}, kNan, at::kBFloat16));
    rope_qk_norm_store(gpu_qkv, gpu_table, batch, fused_q, fused_keys, fused_values, 1e-6);
    EXPECT_TRUE(fused_q.equal(q.select(1, 0)));

    at::Tensor host_keys = c.keys.clone(), host_values = c.values.clone();
    paged_store(k.select(1, 0).cpu(), values_of_qkv, c.batch, host_keys, host_values);
    EXPECT_EQ(exact(host_values).nan_to_num(0.0).max().item<float>(), 448.0F);
    EXPECT_EQ(share_of_others(keys, host_keys), 0.0);
    EXPECT_EQ(share_of_others(values, host_values), 0.0);
    // Keys that are rounded to bfloat16 first can come out on the other side of a tie.
    EXPECT_LT(share_of_others(fused_keys, host_keys), 0.05);
    EXPECT_EQ(share_of_others(fused_values, host_values), 0.0);
    const at::Tensor reread = exact(fused_keys.cpu()).nan_to_num(7.0), wanted = exact(host_keys).nan_to_num(7.0);
    EXPECT_LT(reread.sub(wanted).abs().div(wanted.abs().add(1.0 / 64)).max().item<double>(), 0.15);
  }
}

TEST_F(GpuFp8Cache, FusedDecodesAreRopeStoreAndAttention) {
  for (const CacheShape& s : {CacheShape{4, 4, 128, 16}, CacheShape{4, 2, 64, 16}, CacheShape{16, 1, 128, 5},
                              CacheShape{12, 2, 64, 32}, CacheShape{3, 3, 128, 1}, CacheShape{60, 60, 64, 16}}) {
    const PagedCase c = fp8_case(s, kDecodes);
    const std::int64_t n = c.batch.tokens(), heads = s.n_head + 2 * s.n_kv_head;
    const at::Tensor keys = on_gpu(c.keys), values = on_gpu(c.values);
    const DevicePagedBatch batch(c.batch, keys, s.n_head);
    EXPECT_FALSE(DevicePagedBatch(c.batch, keys, s.n_head, {.batch_invariant = true}).fuses_decodes());
    if (!batch.fuses_decodes()) GTEST_SKIP() << "a GPU without clusters of thread blocks";
    const at::Tensor qkv = on_gpu(random_tensor({n, heads * s.d}, at::kBFloat16, 9));
    const RopeTable host_table = make_rope_table(4096, s.d, 10000.0, false);
    const RopeTable table{on_gpu(host_table.cos), on_gpu(host_table.sin)};
    for (const AttentionScope& scope : {AttentionScope{}, AttentionScope{.window = 0}, AttentionScope{.window = 50},
                                        AttentionScope{.window = 1000, .scale = 1.44}}) {
      const std::string name = std::to_string(s.n_head) + "/" + std::to_string(s.n_kv_head) + " heads of " +
                               std::to_string(s.d) + ", window " + std::to_string(scope.window.value_or(-1));
      at::Tensor q = on_gpu(at::full({n, s.n_head, s.d}, kNan, at::kBFloat16)), out = q.clone();
      at::Tensor expected_keys = keys.clone(), expected_values = values.clone(), got_keys = keys.clone(),
                 got_values = values.clone();
      rope_qk_norm_store(qkv, table, batch, q, expected_keys, expected_values, 1e-6);
      rope_paged_decode(qkv, table, batch, got_keys, got_values, scope, 1e-6, out);
      EXPECT_FALSE(any_nan(out)) << name;
      EXPECT_LT(share_of_others(got_keys, expected_keys), 0.001) << name;  // sums of squares in another order
      EXPECT_EQ(share_of_others(got_values, expected_values), 0.0) << name;
      // Of the keys that it has written: the new one is rounded before it is used.
      const at::Tensor expected = paged_attention(q, got_keys, got_values, batch, scope);
      EXPECT_LT(relative_error(out.cpu(), exact(expected.cpu())), 2.0 / 128) << name;
      if (scope.window == 0) {  // the new value alone
        EXPECT_TRUE(out.equal(expected)) << name;
        EXPECT_TRUE(exact(out).equal(exact(exact(out).to(at::kFloat8_e4m3fn)))) << name;
      }
      for (int i = 0; i < 20; ++i) {
        at::Tensor again = on_gpu(at::full({n, s.n_head, s.d}, kNan, at::kBFloat16));
        rope_paged_decode(qkv, table, batch, got_keys, got_values, scope, 1e-6, again);
        EXPECT_TRUE(again.equal(out)) << name;
      }
    }
  }
}

TEST_F(GpuFp8Cache, FusedDecodesOfEveryLengthAndNumber) {
  const CacheShape s{4, 2, 128, 16};
  const RopeTable host_table = make_rope_table(4096, s.d, 10000.0, false);
  const RopeTable table{on_gpu(host_table.cos), on_gpu(host_table.sin)};
  for (const std::int64_t count : {1, 2, 20, 40, 60, 230, 1700}) {  // eight to one parts; many sequences for each block
    Lengths lengths;
    for (std::int64_t i = 0; i < count; ++i) lengths.push_back({i < 40 ? (i * 37 + count) % 700 : i % 300, 1});
    const PagedCase c = fp8_case(s, lengths, static_cast<std::uint64_t>(count));
    at::Tensor keys = on_gpu(c.keys), values = on_gpu(c.values);
    DevicePagedBatch room(count + 3, 1024, keys, s.n_head);
    if (!room.fuses_decodes()) GTEST_SKIP() << "a GPU without clusters of thread blocks";
    const at::Tensor stream = on_gpu(random_tensor({count + 3, 1280}, at::kBFloat16, 8));
    const at::Tensor qkv = on_gpu(random_tensor({count + 3, (s.n_head + 2 * s.n_kv_head) * s.d}, at::kBFloat16, 9));
    at::Tensor out = on_gpu(at::full({count + 3, s.n_head, s.d}, 7.0, at::kBFloat16)), q = out.clone();
    room.assign(c.batch);
    DeviceGraph graph(keys.device(), [&] { rope_paged_decode(qkv, table, room, keys, values, {}, 1e-6, out, stream); });
    graph.replay();
    at::Tensor other_keys = on_gpu(c.keys), other_values = on_gpu(c.values), some = q.narrow(0, 0, count);
    const DevicePagedBatch batch(c.batch, keys, s.n_head);
    rope_qk_norm_store(qkv.narrow(0, 0, count), table, batch, some, other_keys, other_values, 1e-6);
    const at::Tensor expected = paged_attention(some, keys, values, batch);
    for (std::int64_t i = 0; i < count; ++i) {
      EXPECT_LT(relative_error(out[i].cpu(), exact(expected[i].cpu())), 2.0 / 128)
          << count << " sequences, " << lengths[static_cast<std::size_t>(i)].first;
    }
    EXPECT_TRUE(out.narrow(0, count, 3).eq(7.0).all().item<bool>());
  }
}

TEST_F(GpuFp8Cache, RefusesOtherTypesThanBFloat16) {
  const PagedCase c = fp8_case({4, 2, 64, 16}, {{40, 1}, {0, 7}});
  EXPECT_THROW(paged_attention(on_gpu(exact(c.q)), on_gpu(c.keys), on_gpu(c.values), c.batch), c10::Error);
  EXPECT_THROW(paged_attention(on_gpu(c.q), on_gpu(c.keys), on_gpu(exact(c.values)), c.batch), c10::Error);
}

}  // namespace
}  // namespace nanochat::ops
