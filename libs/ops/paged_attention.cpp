#include "ops/paged_attention.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <c10/util/Float8_e4m3fn.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "ops/attention.h"
#include "ops/cpu/row_products.h"
#include "ops/cuda/backend.h"
#include "ops/cuda/kernels.h"
#include "ops/device.h"
#include "ops/internal/dispatch.h"

namespace nanochat::ops {
namespace {

constexpr at::ScalarType kE4M3 = at::kFloat8_e4m3fn;

void check(const at::Tensor& x, const at::Tensor& keys, const at::Tensor& values, std::int64_t tokens) {
  const bool types_fit = keys.scalar_type() == values.scalar_type() &&
                         (x.scalar_type() == keys.scalar_type() ||
                          (x.scalar_type() == at::kBFloat16 && keys.scalar_type() == kE4M3));
  TORCH_CHECK(x.dim() == 3 && keys.dim() == 4 && keys.sizes() == values.sizes() && keys.is_contiguous() &&
                  values.is_contiguous() && x.size(0) == tokens && x.size(2) == keys.size(3) && x.size(1) % keys.size(1) == 0 &&
                  types_fit,
              "paged attention: ", x.sizes(), " ", x.scalar_type(), " of ", tokens, " tokens does not fit blocks ",
              keys.sizes(), " ", keys.scalar_type());
}

void check(const PagedBatch& batch, std::int64_t blocks, std::int64_t block_size) {
  for (const PagedBatch::Sequence& sequence : batch.sequences) {
    const auto held = static_cast<std::int64_t>(sequence.blocks.size()) * block_size;
    TORCH_CHECK(sequence.start >= 0 && sequence.start + sequence.tokens <= held, "paged attention: position ",
                sequence.start + sequence.tokens - 1, " is beyond a table of ", sequence.blocks.size(), " blocks");
    for (const std::int32_t block : sequence.blocks) {
      TORCH_CHECK(block >= 0 && block < blocks, "paged attention: no block ", block, " of ", blocks);
    }
  }
}
void check(const PagedBatch& batch, const at::Tensor& keys) { check(batch, keys.size(0), keys.size(2)); }

at::Tensor to_e4m3(const at::Tensor& x) {
  const double most = static_cast<float>(std::numeric_limits<c10::Float8_e4m3fn>::max());
  return x.to(at::kFloat).clamp(-most, most).to(kE4M3);
}

// Blocks of a cache. Few operations of ATen take 8-bit numbers.
at::Tensor select_blocks(const at::Tensor& slab, const at::Tensor& table) {
  if (slab.scalar_type() != kE4M3) return slab.index_select(0, table);
  return slab.view(at::kByte).index_select(0, table).view(kE4M3);
}

bool has_kernels(const at::Tensor& keys) { return DevicePagedBatch::takes(keys) && !use_reference_kernels(); }

// Tokens of one sequence that are answered together.
struct Queries {
  const PagedBatch::Sequence* sequence;
  std::int64_t row, count, position;  // of the batch, and of the first of them in the sequence
};

std::vector<Queries> queries_of(const PagedBatch& batch) {
  std::vector<Queries> queries;
  std::int64_t row = 0;
  for (const PagedBatch::Sequence& sequence : batch.sequences) {
    for (std::int64_t i = 0; i < sequence.tokens; i += kQueriesAtOnce) {
      queries.push_back({&sequence, row + i, std::min(kQueriesAtOnce, sequence.tokens - i), sequence.start + i});
    }
    row += sequence.tokens;
  }
  return queries;
}

// Calls body(first token, tokens, block, first slot) for each stretch of tokens that lies in one block.
template <class Body>
void for_each_stretch(const PagedBatch& batch, std::int64_t block_size, const Body& body) {
  std::int64_t token = 0;
  for (const PagedBatch::Sequence& sequence : batch.sequences) {
    for (std::int64_t i = 0; i < sequence.tokens;) {
      const std::int64_t position = sequence.start + i, slot = position % block_size;
      const std::int64_t length = std::min(block_size - slot, sequence.tokens - i);
      body(token + i, length, sequence.blocks[static_cast<std::size_t>(position / block_size)], slot);
      i += length;
    }
    token += sequence.tokens;
  }
}

}  // namespace

std::int64_t PagedBatch::tokens() const {
  std::int64_t total = 0;
  for (const Sequence& sequence : sequences) total += sequence.tokens;
  return total;
}

bool has_fp8_cache(at::Device device) {
  if (!device.is_cuda()) return false;
  const DeviceDescription gpu = describe_gpu(device.index());
  return gpu.major > 8 || (gpu.major == 8 && gpu.minor >= 9);
}

void paged_store(const at::Tensor& k, const at::Tensor& v, const PagedBatch& batch, at::Tensor& keys, at::Tensor& values) {
  check(k, keys, values, batch.tokens());
  check(batch, keys);
  TORCH_CHECK(k.size(1) == keys.size(1) && v.sizes() == k.sizes() && k.stride(2) == 1 && v.stride(2) == 1, "paged_store: k ",
              k.sizes(), " and v ", v.sizes(), " do not fit blocks ", keys.sizes());
  if (has_kernels(keys)) return paged_store(k, v, DevicePagedBatch(batch, keys, keys.size(1)), keys, values);
  if (k.scalar_type() != keys.scalar_type()) return paged_store(to_e4m3(k), to_e4m3(v), batch, keys, values);
  const std::int64_t heads = keys.size(1), block_size = keys.size(2), d = keys.size(3);
  const auto each = [&](const at::Tensor& from, at::Tensor& to) {
    for_each_stretch(batch, block_size, [&](std::int64_t token, std::int64_t length, std::int64_t block, std::int64_t slot) {
      if (!from.is_cpu()) {
        to.select(0, block).narrow(1, slot, length).copy_(from.narrow(0, token, length).transpose(0, 1));
        return;
      }
      const auto element = static_cast<std::int64_t>(from.element_size());
      const auto* source = static_cast<const char*>(from.const_data_ptr());
      auto* target = static_cast<char*>(to.data_ptr());
      for (std::int64_t i = 0; i < length; ++i) {
        for (std::int64_t head = 0; head < heads; ++head) {
          std::memcpy(target + ((block * heads + head) * block_size + slot + i) * d * element,
                      source + ((token + i) * from.stride(0) + head * from.stride(1)) * element,
                      static_cast<std::size_t>(d * element));
        }
      }
    });
  };
  each(k, keys);
  each(v, values);
}

at::Tensor paged_attention(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values, const PagedBatch& batch,
                           const AttentionScope& scope) {
  check(q, keys, values, batch.tokens());
  check(batch, keys);
  if (has_kernels(keys)) {
    return paged_attention(q, keys, values, DevicePagedBatch(batch, keys, q.size(1)), scope);
  }
  if (!q.is_cpu()) return paged_attention_reference(q, keys, values, batch, scope);
  if (keys.scalar_type() != q.scalar_type()) {  // for tests: the whole cache is converted
    return paged_attention(q, keys.to(q.scalar_type()), values.to(q.scalar_type()), batch, scope);
  }
  const std::int64_t n_head = q.size(1), d = q.size(2), heads = keys.size(1), block_size = keys.size(2);
  const std::int64_t group = n_head / heads;
  const std::vector<Queries> all = queries_of(batch);
  const auto n = static_cast<std::int64_t>(all.size());
  std::int64_t longest = 0;
  for (const Queries& queries : all) longest = std::max(longest, queries.position + queries.count);
  const auto scale = static_cast<float>(scope.scale / std::sqrt(static_cast<double>(d)));
  at::Tensor out = at::empty(q.sizes(), q.options());
  visit_dtype(q, "paged_attention", [&]<class T>(T) {
    const auto attend = cpu::row_kernels<T>(d).attend;
    // Heads first: threads then share out the heads of every sequence, whatever their lengths.
    parallel_for(n * n_head, row_grain(longest * d), [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> scratch(static_cast<std::size_t>(cpu::attend_scratch(longest)));
      for (std::int64_t i = begin; i < end; ++i) {
        const Queries& queries = all[static_cast<std::size_t>(i % n)];
        const std::int64_t head = i / n, first = (queries.row * n_head + head) * d, offset = head / group * block_size * d;
        const cpu::PagedHead<T> paged{typed<T>(keys) + offset,         typed<T>(values) + offset,
                                      queries.sequence->blocks.data(), block_size,
                                      heads * block_size * d,          d};
        attend_in_window(attend, typed<T>(q) + first, n_head * d, queries.count, paged, typed<T>(out) + first, scratch.data(),
                         queries.position + 1, d, scale, scope.window);
      }
    });
  });
  return out;
}

at::Tensor paged_attention_reference(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values,
                                     const PagedBatch& batch, const AttentionScope& scope) {
  check(q, keys, values, batch.tokens());
  check(batch, keys);
  at::Tensor out = at::empty(q.sizes(), q.options());
  std::int64_t token = 0;
  for (const PagedBatch::Sequence& sequence : batch.sequences) {
    const std::int64_t seen = sequence.start + sequence.tokens, blocks = (seen + keys.size(2) - 1) / keys.size(2);
    const at::Tensor table = at::tensor(at::ArrayRef<std::int32_t>(sequence.blocks.data(), static_cast<std::size_t>(blocks)),
                                        at::kInt)
                                 .to(keys.device());
    const auto gather = [&](const at::Tensor& slab) {  // (1, positions, NKV, D)
      return select_blocks(slab, table).to(q.scalar_type()).transpose(1, 2).flatten(0, 1).narrow(0, 0, seen).unsqueeze(0);
    };
    const at::Tensor start = at::tensor({sequence.start}, at::kLong);
    const at::Tensor queries = q.narrow(0, token, sequence.tokens).unsqueeze(0);
    out.narrow(0, token, sequence.tokens)
        .copy_(cached_attention(queries, gather(keys), gather(values), start, scope).squeeze(0));
    token += sequence.tokens;
  }
  return out;
}

// --------------------------------------------------------------------------------------------------------- on a GPU

namespace {

// Keys of a split: as many as leave enough blocks of threads to fill the GPU several times.
std::int64_t choose_split(const std::vector<std::int64_t>& seen, std::int64_t n_kv_head, std::int64_t blocks_wanted) {
  constexpr std::int64_t kLargest = 4096;
  for (std::int64_t split = kLargest; split > cuda::kTileKeys; split /= 2) {
    std::int64_t blocks = 0;
    for (const std::int64_t keys : seen) blocks += (keys + split - 1) / split;
    if (blocks * n_kv_head >= blocks_wanted) return split;
  }
  return cuda::kTileKeys;
}

constexpr std::int64_t kBlocksWanted = 528;      // four for each multiprocessor of a large GPU
constexpr std::int64_t kInvariantSplit = 256;
constexpr std::int64_t kDecodeBlocksAtOnce = 2;  // of parts of decodes, on a multiprocessor

constexpr std::int32_t kNowhere = -1;  // the slot of a token that is not there

at::Tensor pinned(const std::vector<std::int32_t>& lists) {
  at::Tensor host = at::empty({static_cast<std::int64_t>(lists.size())}, at::TensorOptions(at::kInt).pinned_memory(true));
  std::memcpy(host.data_ptr(), lists.data(), lists.size() * sizeof(std::int32_t));
  return host;
}

}  // namespace

// What the kernels read, on the host.
struct DevicePagedBatch::Lists {
  std::vector<cuda::PagedSequence> sequences;
  std::vector<std::int32_t> tables, positions, slots, inputs, before;
  std::vector<cuda::PagedTile> tiles, tall_tiles;

  void add(const PagedBatch::Sequence& sequence, std::int64_t block_size) {
    sequences.push_back({static_cast<std::int32_t>(positions.size()), static_cast<std::int32_t>(sequence.tokens),
                         static_cast<std::int32_t>(sequence.start), static_cast<std::int32_t>(tables.size())});
    tables.insert(tables.end(), sequence.blocks.begin(), sequence.blocks.end());
    for (std::int64_t position = sequence.start; position < sequence.start + sequence.tokens; ++position) {
      const std::int64_t block = sequence.blocks[static_cast<std::size_t>(position / block_size)];
      positions.push_back(static_cast<std::int32_t>(position));
      slots.push_back(static_cast<std::int32_t>(block * block_size + position % block_size));
    }
  }

  // All lists as one, a multiple of 16 bytes, each from such a multiple on: kernels read so many at a time; `batch` learns where they begin.
  // The tables come last: in a batch with room for more they alone have no fixed size.
  std::vector<std::int32_t> join(DevicePagedBatch& batch) const {
    std::vector<std::int32_t> joined;
    const auto align = [&] { joined.resize((joined.size() + 3) / 4 * 4); };
    const auto append = [&](const auto& items) {
      using Item = typename std::decay_t<decltype(items)>::value_type;
      static_assert(sizeof(Item) % sizeof(std::int32_t) == 0);
      align();
      const std::size_t begin = joined.size();
      joined.resize(begin + items.size() * sizeof(Item) / sizeof(std::int32_t));
      if (!items.empty()) std::memcpy(joined.data() + begin, items.data(), items.size() * sizeof(Item));
      return static_cast<std::int64_t>(begin);
    };
    batch.sequences_ = append(sequences);
    batch.positions_ = append(positions);
    batch.slots_ = append(slots);
    batch.inputs_ = append(inputs);
    batch.before_ = append(before);
    batch.tiles_.begin = append(tiles);
    batch.tall_tiles_.begin = append(tall_tiles);
    batch.tables_ = append(tables);
    align();
    return joined;
  }
};

bool DevicePagedBatch::takes(const at::Tensor& keys) { return keys.is_cuda() && cuda::paged_attention_takes(keys.size(3)); }

namespace {

void check(const at::Tensor& keys, std::int64_t n_head, const PagedOptions& options) {
  TORCH_CHECK(DevicePagedBatch::takes(keys), "paged attention: no kernels for blocks ", keys.sizes(), " on ", keys.device());
  TORCH_CHECK(options.split >= 0 && options.split % cuda::kTileKeys == 0, "paged attention: a split of ", options.split,
              " keys is no multiple of ", cuda::kTileKeys);
  TORCH_CHECK(n_head % keys.size(1) == 0, "paged attention: ", n_head, " heads do not share ", keys.size(1));
  TORCH_CHECK(keys.size(0) * keys.size(2) <= std::numeric_limits<std::int32_t>::max(), "paged attention: too many blocks");
}

std::int64_t fixed_split(const PagedOptions& options) {
  return options.split > 0 ? options.split : options.batch_invariant ? kInvariantSplit : 0;
}

}  // namespace

DevicePagedBatch::DevicePagedBatch(const PagedBatch& batch, const at::Tensor& keys, std::int64_t n_head,
                                   const PagedOptions& options)
    : blocks_(keys.size(0)), block_size_(keys.size(2)), tokens_(batch.tokens()) {
  check(keys, n_head, options);
  check(batch, keys);
  const std::int64_t n_kv_head = keys.size(1), group = n_head / n_kv_head;
  const bool may_be_tall = keys.scalar_type() != at::kFloat && !options.batch_invariant;
  Lists lists;
  std::vector<std::int64_t> seen, tall_seen;  // keys, of each tile
  for (const PagedBatch::Sequence& sequence : batch.sequences) {
    const auto index = static_cast<std::int32_t>(lists.sequences.size());
    lists.add(sequence, keys.size(2));
    const std::int64_t rows = sequence.tokens * group;
    const bool tall = may_be_tall && rows > cuda::kTileRows;
    const std::int64_t tile_rows = tall ? cuda::kTallTileRows : cuda::kTileRows;
    Tiles& kind = tall ? tall_tiles_ : tiles_;
    kind.longest = std::max(kind.longest, sequence.start + sequence.tokens);
    kind.rows = std::max(kind.rows, std::min(rows, tile_rows));
    for (std::int64_t first = 0; first < rows; first += tile_rows) {
      (tall ? lists.tall_tiles : lists.tiles).push_back({index, static_cast<std::int32_t>(first)});
      (tall ? tall_seen : seen).push_back(sequence.start + (std::min(first + tile_rows, rows) - 1) / group + 1);
    }
  }
  tiles_.count = static_cast<std::int64_t>(lists.tiles.size());
  tall_tiles_.count = static_cast<std::int64_t>(lists.tall_tiles.size());
  const std::int64_t fixed = fixed_split(options);
  tiles_.split = fixed > 0 ? fixed : choose_split(seen, n_kv_head, kBlocksWanted);
  tall_tiles_.split = fixed > 0 ? fixed : choose_split(tall_seen, n_kv_head, kBlocksWanted / 2);
  const auto single = [](const PagedBatch::Sequence& sequence) { return sequence.tokens == 1; };
  if (std::all_of(batch.sequences.begin(), batch.sequences.end(), single)) choose_decode_parts(keys, n_head, options);
  lists_ = pinned(lists.join(*this)).to(keys.device(), /*non_blocking=*/true);
  reserve_scratch(keys);
}

DevicePagedBatch::DevicePagedBatch(std::int64_t sequences, std::int64_t longest, const at::Tensor& keys, std::int64_t n_head,
                                   const PagedOptions& options)
    : blocks_(keys.size(0)), block_size_(keys.size(2)), tokens_(sequences) {
  check(keys, n_head, options);
  const std::int64_t group = n_head / keys.size(1), blocks = (longest + keys.size(2) - 1) / keys.size(2);
  TORCH_CHECK(sequences > 0 && longest > 0 && group <= cuda::kTileRows, "paged attention: no room for ", sequences,
              " decodes of ", longest, " positions and ", group, " heads for each of the keys");
  const std::int64_t fixed = fixed_split(options);
  tiles_.count = sequences;
  tiles_.rows = group;
  tiles_.longest = longest;
  tiles_.split = fixed > 0 ? fixed
                           : choose_split(std::vector<std::int64_t>(static_cast<std::size_t>(sequences), longest), keys.size(1),
                                          kBlocksWanted);
  choose_decode_parts(keys, n_head, options);
  lists_ = at::empty({sequences * (10 + blocks) + 24}, keys.options().dtype(at::kInt));
  reserve_scratch(keys);
  assign({});
}

void DevicePagedBatch::choose_decode_parts(const at::Tensor& keys, std::int64_t n_head, const PagedOptions& options) {
  if (!options.fuse_decodes || fixed_split(options) > 0 || !cuda::paged_decode_takes(keys, n_head)) return;
  const std::int64_t at_once = kDecodeBlocksAtOnce * cuda::multiprocessor_count(keys.device().index());
  decode_parts_ = cuda::kMostDecodeParts;
  while (decode_parts_ > 1 && tokens_ * keys.size(1) * decode_parts_ > at_once) decode_parts_ /= 2;
}

void DevicePagedBatch::assign(const PagedBatch& batch, std::span<const std::int32_t> inputs,
                              std::span<const std::int32_t> before) {
  check(batch, blocks_, block_size_);
  TORCH_CHECK(batch.tokens() == static_cast<std::int64_t>(batch.sequences.size()) && batch.tokens() <= tiles_.count &&
                  tall_tiles_.count == 0,
              "paged attention: a batch of ", batch.tokens(), " tokens does not fit one of ", tiles_.count, " decodes");
  for (const auto& numbers : {inputs, before}) {
    TORCH_CHECK(numbers.empty() || static_cast<std::int64_t>(numbers.size()) == batch.tokens(),
                "paged attention: ", numbers.size(), " inputs for a batch of ", batch.tokens(), " tokens");
  }
  Lists lists;
  lists.inputs.assign(inputs.begin(), inputs.end());
  lists.before.assign(before.begin(), before.end());
  for (const PagedBatch::Sequence& sequence : batch.sequences) {
    TORCH_CHECK(sequence.start < tiles_.longest, "paged attention: position ", sequence.start, " is beyond ", tiles_.longest);
    lists.add(sequence, block_size_);
  }
  const auto count = static_cast<std::size_t>(tiles_.count);
  lists.sequences.resize(count);  // without tokens
  lists.positions.resize(count, 0);
  lists.slots.resize(count, kNowhere);
  lists.inputs.resize(count, 0);
  lists.before.resize(count, -1);
  for (std::size_t i = 0; i < count; ++i) lists.tiles.push_back({static_cast<std::int32_t>(i), 0});
  const std::vector<std::int32_t> joined = lists.join(*this);
  TORCH_CHECK(static_cast<std::int64_t>(joined.size()) <= lists_.numel(), "paged attention: block tables longer than ",
              tiles_.longest, " positions");
  cuda::upload(pinned(joined), lists_);
}

void DevicePagedBatch::reserve_scratch(const at::Tensor& keys) {
  std::int64_t floats = 0, counters = 0;
  for (const Tiles& kind : {tiles_, tall_tiles_}) {
    if (kind.splits() <= 1) continue;
    floats = std::max(floats, cuda::paged_partial_floats(kind, keys));
    counters = std::max(counters, kind.count * keys.size(1));
  }
  partial_ = at::empty({floats}, keys.options().dtype(at::kFloat));
  counters_ = at::zeros({counters}, keys.options().dtype(at::kInt));
}

void paged_store(const at::Tensor& k, const at::Tensor& v, const DevicePagedBatch& batch, at::Tensor& keys,
                 at::Tensor& values) {
  check(k, keys, values, batch.tokens());
  TORCH_CHECK(k.size(1) == keys.size(1) && v.sizes() == k.sizes(), "paged_store: k ", k.sizes(), " and v ", v.sizes(),
              " do not fit blocks ", keys.sizes());
  cuda::paged_store(k, v, batch, keys, values);
}

namespace {

void check_rope(const char* name, const at::Tensor& qkv, const RopeTable& table, const DevicePagedBatch& batch,
                const at::Tensor& q, const at::Tensor& keys) {
  TORCH_CHECK(qkv.numel() == q.size(0) * (q.size(1) + 2 * keys.size(1)) * q.size(2) && table.cos.size(1) == q.size(2) / 2, name,
              ": qkv ", qkv.sizes(), " does not fit heads ", q.sizes(), " and blocks ", keys.sizes());
  const std::int64_t longest = std::max(batch.tiles().longest, batch.tall_tiles().longest);
  TORCH_CHECK(longest <= table.cos.size(0), name, ": position ", longest - 1, " is beyond the table of ", table.cos.size(0));
}

}  // namespace

void rope_qk_norm_store(const at::Tensor& qkv, const RopeTable& table, const DevicePagedBatch& batch, at::Tensor& q,
                        at::Tensor& keys, at::Tensor& values, double eps) {
  check(q, keys, values, batch.tokens());
  check_rope("rope_qk_norm_store", qkv, table, batch, q, keys);
  cuda::rope_qk_norm_store(qkv, table, batch, q, keys, values, eps);
}

void rope_paged_decode(const at::Tensor& qkv, const RopeTable& table, const DevicePagedBatch& batch, at::Tensor& keys,
                       at::Tensor& values, const AttentionScope& scope, double eps, at::Tensor& out, const at::Tensor& stream) {
  check(out, keys, values, batch.tokens());
  check_rope("rope_paged_decode", qkv, table, batch, out, keys);
  TORCH_CHECK(batch.fuses_decodes() && qkv.is_contiguous(), "rope_paged_decode: the batch or qkv does not fit the kernel");
  TORCH_CHECK(!stream.defined() || (stream.dim() == 2 && stream.size(0) == out.size(0) && stream.size(1) % 8 == 0),
              "rope_paged_decode: rows ", stream.sizes(), " do not fit heads ", out.sizes());
  cuda::paged_decode(qkv, table, batch, keys, values, scope, eps, out, stream);
}

at::Tensor paged_attention(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values, const DevicePagedBatch& batch,
                           const AttentionScope& scope) {
  at::Tensor out = at::empty(q.sizes(), q.options());
  paged_attention(q, keys, values, batch, scope, out);
  return out;
}

void paged_attention(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values, const DevicePagedBatch& batch,
                     const AttentionScope& scope, at::Tensor& out) {
  check(q, keys, values, batch.tokens());
  TORCH_CHECK(out.sizes() == q.sizes(), "paged attention: out ", out.sizes(), " does not fit q ", q.sizes());
  cuda::paged_attention(q, keys, values, batch, scope, out);
}

}  // namespace nanochat::ops
