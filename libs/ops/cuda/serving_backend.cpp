// The backend's operations for serving (backend.h): products of few rows, the paged cache, draws of tokens, graphs.

#include <ATen/core/CachingHostAllocator.h>
#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/CUDAGraph.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>

#include "ops/cuda/backend.h"
#include "ops/cuda/kernels.h"
#include "ops/cuda/tensors.h"
#include "ops/sample.h"

namespace nanochat::ops::cuda {
namespace {

// The element type of a tensor whose rows may lie apart.
Element element_of_rows(const at::Tensor& tensor) {
  TORCH_CHECK(tensor.stride(-1) == 1, "expected rows without gaps, got strides ", tensor.strides());
  if (tensor.scalar_type() == at::kFloat) return Element::kFloat;
  TORCH_CHECK(tensor.scalar_type() == at::kBFloat16, "expected float32 or bfloat16, got ", tensor.scalar_type());
  return Element::kBFloat16;
}

std::int32_t narrow(std::int64_t value) {
  TORCH_CHECK(value >= 0 && value <= std::numeric_limits<std::int32_t>::max(), value, " does not fit the kernels' integers");
  return static_cast<std::int32_t>(value);
}

bool is_fp8(const at::Tensor& cache) { return cache.scalar_type() == at::kFloat8_e4m3fn; }

// Memory of a cache for keys and values of the type of `like`.
void* cache_data(const at::Tensor& cache, const at::Tensor& like) {
  if (!is_fp8(cache)) return data(cache, like);
  TORCH_CHECK(cache.is_contiguous() && like.scalar_type() == at::kBFloat16 && cache.device() == like.device(),
              "expected a contiguous cache for bfloat16 on ", like.device(), ", got one on ", cache.device(), " with strides ",
              cache.strides(), " for ", like.scalar_type());
  return cache.data_ptr();
}

PagedShape shape_of(const at::Tensor& keys, std::int64_t tokens, std::int64_t n_head) {
  return {narrow(tokens), narrow(n_head), narrow(keys.size(1)), narrow(keys.size(3)), narrow(keys.size(2)), is_fp8(keys)};
}

const std::int32_t* list(const DevicePagedBatch& batch, std::int64_t begin) {
  return device_data<std::int32_t>(batch.lists()) + begin;
}

std::int32_t log2_of(std::int64_t n) {
  std::int32_t log2 = 0;
  while ((std::int64_t{1} << log2) < n) ++log2;
  return (std::int64_t{1} << log2) == n ? log2 : -1;
}

// The size of blocks, and what the kernels use instead of a division by it: exact for all positions and slots, which are 31 bits.
template <class Arguments>
void set_block_size(Arguments& a, std::int64_t size) {
  a.block_size = narrow(size);
  a.block_shift = log2_of(size);
  a.block_inverse = a.block_shift >= 0 ? 0 : std::numeric_limits<std::uint64_t>::max() / static_cast<std::uint64_t>(size) + 1;
}

std::int32_t window_of(const AttentionScope& scope) { return scope.window ? narrow(*scope.window) : kNoWindow; }
float scale_of(const AttentionScope& scope, std::int64_t d) { return static_cast<float>(softmax_scale(d) * scope.scale); }

PagedAttentionArguments arguments_of(const DevicePagedBatch::Tiles& tiles, const at::Tensor& keys, std::int64_t n_head) {
  PagedAttentionArguments a = {};
  a.n_head = narrow(n_head);
  a.n_kv_head = narrow(keys.size(1));
  a.d = narrow(keys.size(3));
  set_block_size(a, keys.size(2));
  a.tile_count = narrow(tiles.count);
  a.partial_rows = narrow(tiles.rows);
  a.split = narrow(tiles.split);
  a.splits = narrow(tiles.splits());
  return a;
}

}  // namespace

bool linear_rows(const at::Tensor& x, const at::Tensor& w, at::Tensor& y, const LinearFusion& fusion) {
  const On stream(x);
  const Element type = element_of_rows(x);
  TORCH_CHECK(element_of_rows(w) == type && element_of_rows(y) == type && w.device() == x.device() && y.device() == x.device(),
              "linear_rows: x, w and y differ in type or device");
  const LinearRows arguments = {x.const_data_ptr(),  x.stride(0),
                                w.const_data_ptr(),  w.stride(0),
                                y.data_ptr(),        y.stride(0),
                                narrow(x.size(0)),   narrow(w.size(0)),
                                narrow(x.size(1)),   fusion.normalise ? static_cast<float>(fusion.eps) : -1.0F,
                                fusion.relu_squared, fusion.add};
  if (!linear_rows_takes(type, arguments)) return false;
  linear_rows(type, arguments, stream);
  return true;
}

std::int64_t paged_partial_floats(const DevicePagedBatch::Tiles& tiles, const at::Tensor& keys) {
  return paged_partial_floats(arguments_of(tiles, keys, keys.size(1)));
}

void paged_store(const at::Tensor& k, const at::Tensor& v, const DevicePagedBatch& batch, at::Tensor& keys,
                 at::Tensor& values) {
  const On stream(keys);
  const Element type = element_of_rows(k);
  TORCH_CHECK(element_of_rows(v) == type && k.stride(1) == k.size(2) && v.stride(1) == v.size(2),
              "paged_store: heads of k and v must follow each other, got strides ", k.strides(), " and ", v.strides());
  paged_store(type, k.const_data_ptr(), k.stride(0), v.const_data_ptr(), v.stride(0), device_data<std::int32_t>(batch.slots()),
              cache_data(keys, k), cache_data(values, k), shape_of(keys, batch.tokens(), keys.size(1)), stream);
}

void rope_qk_norm_store(const at::Tensor& qkv, const RopeTable& table, const DevicePagedBatch& batch, at::Tensor& q,
                        at::Tensor& keys, at::Tensor& values, double eps) {
  const On stream(qkv);
  rope_qk_norm_store(element_of(qkv), qkv.const_data_ptr(), device_data<float>(table.cos), device_data<float>(table.sin),
                     device_data<std::int32_t>(batch.positions()), device_data<std::int32_t>(batch.slots()), data(q, qkv),
                     cache_data(keys, qkv), cache_data(values, qkv), shape_of(keys, batch.tokens(), q.size(1)),
                     static_cast<float>(eps), stream);
}

void paged_attention(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values, const DevicePagedBatch& batch,
                     const AttentionScope& scope, at::Tensor& out) {
  const On stream(q);
  for (const DevicePagedBatch::Tiles* tiles : {&batch.tall_tiles(), &batch.tiles()}) {
    if (tiles->count == 0) continue;
    PagedAttentionArguments a = arguments_of(*tiles, keys, q.size(1));
    a.sequences = reinterpret_cast<const PagedSequence*>(list(batch, batch.sequences()));
    a.tiles = reinterpret_cast<const PagedTile*>(list(batch, tiles->begin));
    a.tables = list(batch, batch.tables());
    a.q = q.const_data_ptr();
    a.keys = cache_data(keys, q);
    a.values = cache_data(values, q);
    a.fp8 = is_fp8(keys);
    a.out = data(out, q);
    a.partial = device_data<float>(batch.partial());
    a.counters = device_data<std::int32_t>(batch.counters());
    a.window = window_of(scope);
    a.scale = scale_of(scope, keys.size(3));
    a.tall = tiles == &batch.tall_tiles();
    paged_attention(element_of(q), a, stream);
  }
}

void relu_squared_normalised(const at::Tensor& x, at::Tensor& y, double eps) {
  const On stream(x);
  relu_squared_normalised(element_of(x), x.const_data_ptr(), data(y, x), x.size(0), x.size(1), y.size(1),
                          static_cast<float>(eps), stream);
}

void upload(const at::Tensor& host, at::Tensor& to) {
  const On stream(to);
  const auto bytes = static_cast<std::int64_t>(host.nbytes());
  TORCH_CHECK(host.is_pinned() && host.is_contiguous() && to.is_contiguous() && host.dtype() == to.dtype() && bytes % 16 == 0 &&
                  host.numel() <= to.numel(),
              "upload: ", host.sizes(), " does not fit ", to.sizes());
  upload(host.const_data_ptr(), to.data_ptr(), bytes, stream);
  // The memory of the host is not given to anyone else before the kernel has read it.
  at::getHostAllocator(at::kCUDA)->record_event(host.data_ptr(), host.storage().data_ptr().get_context(),
                                                c10::cuda::getCurrentCUDAStream().unwrap());
}

bool paged_decode_takes(const at::Tensor& keys, std::int64_t n_head) {
  const c10::cuda::CUDAGuard guard(keys.device());
  return (keys.scalar_type() == at::kBFloat16 || is_fp8(keys)) && paged_decode_takes(keys.size(3), n_head / keys.size(1));
}

void paged_decode(const at::Tensor& qkv, const RopeTable& table, const DevicePagedBatch& batch, at::Tensor& keys,
                  at::Tensor& values, const AttentionScope& scope, double eps, at::Tensor& out, const at::Tensor& rows) {
  const On stream(qkv);
  PagedDecode a = {};
  a.qkv = qkv.const_data_ptr();
  a.cos = device_data<float>(table.cos);
  a.sin = device_data<float>(table.sin);
  a.keys = cache_data(keys, qkv);
  a.values = cache_data(values, qkv);
  a.fp8 = is_fp8(keys);
  a.out = data(out, qkv);
  a.sequences = reinterpret_cast<const PagedSequence*>(list(batch, batch.sequences()));
  a.tables = list(batch, batch.tables());
  a.slots = device_data<std::int32_t>(batch.slots());
  a.n_head = narrow(out.size(1));
  a.n_kv_head = narrow(keys.size(1));
  a.d = narrow(keys.size(3));
  set_block_size(a, keys.size(2));
  a.sequence_count = narrow(batch.tokens());
  a.parts = narrow(batch.decode_parts());
  a.window = window_of(scope);
  a.scale = scale_of(scope, keys.size(3));
  a.eps = static_cast<float>(eps);
  if (rows.defined()) {
    a.stream = data(rows, qkv);
    a.width = narrow(rows.size(1));
  }
  paged_decode(a, stream);
}

namespace {

// Streams of a device beside those that callers use.
enum class Purpose {
  // Graphs are recorded here: not on the default stream, which cannot be recorded, and always on the same one, so that what
  // libraries keep for each stream, such as the scratch memory of products, is taken once and outside of any graph.
  kRecording,
  kUploads,  // copies that do not wait for the kernels before them
  kDownloads,  // copies that the kernels behind them do not wait for
};
c10::cuda::CUDAStream stream_for(Purpose purpose) {
  static std::mutex mutex;
  static std::map<std::pair<c10::DeviceIndex, Purpose>, c10::cuda::CUDAStream> streams;
  const std::scoped_lock lock(mutex);
  const c10::DeviceIndex device = c10::cuda::current_device();
  return streams.try_emplace({device, purpose}, c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device)).first->second;
}

// Lists of different types that travel to a device in one copy. reserve() all of them, then write them between begin() and to().
class Lists {
 public:
  // Room for `count` items, aligned to 16 bytes; returns where, in bytes.
  template <class T>
  std::size_t reserve(std::size_t count) {
    const std::size_t begin = (bytes_ + 15) / 16 * 16;
    bytes_ = begin + count * sizeof(T);
    return begin;
  }
  void begin() { host_ = at::empty({static_cast<std::int64_t>(bytes_)}, at::TensorOptions(at::kByte).pinned_memory(true)); }
  template <class T>
  T* at(std::size_t begin) const {
    return reinterpret_cast<T*>(static_cast<std::uint8_t*>(host_.data_ptr()) + begin);
  }
  // A copy on the device, for what is enqueued on the current stream from now on. It is made at once, whatever that stream
  // still has to do.
  at::Tensor to(at::Device device) const {
    const c10::cuda::CUDAStream user = c10::cuda::getCurrentCUDAStream(), uploads = stream_for(Purpose::kUploads);
    at::cuda::CUDAEvent copied;
    at::Tensor memory;
    {
      const c10::cuda::CUDAStreamGuard on_stream(uploads);
      memory = host_.to(device, /*non_blocking=*/true);
      copied.record(uploads);
    }
    copied.block(user);
    memory.record_stream(user);
    return memory;
  }

 private:
  std::size_t bytes_ = 0;
  at::Tensor host_;  // pinned
};

// Lists of numbers one after the other, and where each lies among them.
template <class T>
class Appender {
 public:
  explicit Appender(T* numbers) : numbers_(numbers) {}
  SampleList add(std::span<const T> list) {
    if (!list.empty()) std::memcpy(numbers_ + used_, list.data(), list.size_bytes());
    const SampleList place = {narrow(used_), narrow(static_cast<std::int64_t>(list.size()))};
    used_ += static_cast<std::int64_t>(list.size());
    return place;
  }

 private:
  T* numbers_;
  std::int64_t used_ = 0;
};

// Draws at a temperature, and logprobs, take sums of weights.
bool takes_sums(const ops::SampleRow& row) { return row.temperature != 0.0 || row.logprob || row.top_logprobs > 0; }
bool is_counted(const ops::SampleRow& row) { return row.frequency_penalty != 0.0 || row.presence_penalty != 0.0; }
std::span<const std::int32_t> seen_of(const ops::SampleRow& row) {
  return row.repetition_penalty != 1.0 ? row.seen : std::span<const std::int32_t>();
}
std::span<const std::int32_t> generated_of(const ops::SampleRow& row) {
  return is_counted(row) ? row.generated : std::span<const std::int32_t>();
}

}  // namespace

at::Tensor sample(const at::Tensor& logits, std::span<const ops::SampleRow> rows, std::int64_t most_top,
                  const at::Tensor& inputs, at::Tensor& tokens, const at::Tensor& extremes) {
  const On stream(logits);
  using Float = std::numeric_limits<float>;
  const std::int64_t vocab = logits.size(1), words = (vocab + 31) / 32, count = static_cast<std::int64_t>(rows.size());
  std::size_t id_count = 0, bias_count = 0, masks = 0;
  for (const ops::SampleRow& row : rows) {
    id_count += seen_of(row).size() + generated_of(row).size() + row.forbidden.size();
    bias_count += row.logit_bias.size();
    masks += row.allowed.empty() ? 0 : 1;
  }
  Lists lists;
  const std::size_t at_rows = lists.reserve<SampleRow>(rows.size()), at_ids = lists.reserve<std::int32_t>(id_count);
  const std::size_t at_bias_ids = lists.reserve<std::int32_t>(bias_count), at_bias_values = lists.reserve<float>(bias_count);
  const std::size_t at_masks = lists.reserve<std::uint32_t>(masks * static_cast<std::size_t>(words));
  lists.begin();
  Appender<std::int32_t> ids(lists.at<std::int32_t>(at_ids));
  Appender<std::uint32_t> mask_words(lists.at<std::uint32_t>(at_masks));
  auto* bias_ids = lists.at<std::int32_t>(at_bias_ids);
  auto* bias_values = lists.at<float>(at_bias_values);
  std::int32_t biases = 0, penalised = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const ops::SampleRow& row = rows[i];
    SampleRow to = {};
    to.logits = narrow(row.row);
    to.greedy = row.temperature == 0.0 ? 1 : 0;
    if (to.greedy == 0) {
      to.inverse_temperature = static_cast<float>(std::clamp(1.0 / row.temperature, double{Float::min()},
                                                             double{Float::max()}));
    }
    to.repetition_penalty = static_cast<float>(row.repetition_penalty);
    to.frequency_penalty = row.frequency_penalty;
    to.presence_penalty = row.presence_penalty;
    to.top_p = row.top_p;
    to.min_p = row.min_p;
    to.uniform = row.uniform;
    to.top_k = narrow(std::min(row.top_k, vocab));
    to.logprob = row.logprob ? 1 : 0;
    to.top_logprobs = narrow(row.top_logprobs);
    to.seen = ids.add(seen_of(row));
    to.generated = ids.add(generated_of(row));
    to.last_input = is_counted(row) || row.repetition_penalty != 1.0 ? static_cast<std::int32_t>(row.last_input) : -1;
    TORCH_CHECK(to.last_input < 0 || (inputs.defined() && to.last_input < inputs.numel()), "sample: no input ", to.last_input);
    to.scratch_row = to.seen.count + to.generated.count > 0 || to.last_input >= 0 ? penalised++ : -1;
    to.forbidden = ids.add(row.forbidden);
    to.bias = {biases, narrow(static_cast<std::int64_t>(row.logit_bias.size()))};
    for (const auto& [id, bias] : row.logit_bias) {
      bias_ids[biases] = id;
      bias_values[biases++] = static_cast<float>(bias);
    }
    to.allowed = -1;
    if (!row.allowed.empty()) {
      to.allowed = mask_words.add({reinterpret_cast<const std::uint32_t*>(row.allowed.data()), static_cast<std::size_t>(words)})
                       .begin;
    }
    lists.at<SampleRow>(at_rows)[i] = to;
  }

  const at::Tensor memory = lists.to(logits.device());
  const auto* base = static_cast<const std::uint8_t*>(memory.const_data_ptr());
  const auto options = logits.options();
  const at::Tensor weights = at::empty({count, vocab}, options);
  const at::Tensor found = extremes.defined() ? extremes : logit_extremes(logits.size(0), vocab, logits.device());
  const std::int64_t sums = count * logit_runs(vocab);
  const at::Tensor scratch = at::empty({2 * sums}, options.dtype(at::kDouble)), peaks = at::empty({sums}, options);
  const at::Tensor counts = penalised > 0 ? at::zeros({penalised, vocab}, options.dtype(at::kInt)) : at::Tensor();
  at::Tensor results = at::empty(
      {count * static_cast<std::int64_t>(sizeof(SampledRow) + static_cast<std::size_t>(most_top) * sizeof(SampledLogprob))},
      options.dtype(at::kByte));
  SampleArguments a = {};
  a.logits = device_data<float>(logits);
  a.extremes = reinterpret_cast<LogitExtremes*>(device_data<std::int64_t>(found));
  a.has_extremes = extremes.defined();
  a.sums = std::any_of(rows.begin(), rows.end(), takes_sums);
  a.draw_sums = device_data<double>(scratch);
  a.log_sums = a.draw_sums + sums;
  a.peaks = device_data<float>(peaks);
  a.rows = reinterpret_cast<const SampleRow*>(base + at_rows);
  a.ids = reinterpret_cast<const std::int32_t*>(base + at_ids);
  a.inputs = inputs.defined() ? device_data<std::int32_t>(inputs) : nullptr;
  a.bias_ids = reinterpret_cast<const std::int32_t*>(base + at_bias_ids);
  a.bias_values = reinterpret_cast<const float*>(base + at_bias_values);
  a.masks = reinterpret_cast<const std::uint32_t*>(base + at_masks);
  a.weights = weights.data_ptr<float>();
  a.counts = penalised > 0 ? reinterpret_cast<std::uint32_t*>(counts.data_ptr()) : nullptr;
  a.results = reinterpret_cast<SampledRow*>(results.data_ptr());
  a.top = reinterpret_cast<SampledLogprob*>(a.results + count);
  a.tokens = device_data<std::int32_t>(tokens);
  a.row_count = narrow(count);
  a.vocab = narrow(vocab);
  a.top_stride = narrow(most_top);
  sample(a, stream);
  return results;
}

class Event {
 public:
  void record() { event_.record(); }
  void wait() const { event_.synchronize(); }

 private:
  at::cuda::CUDAEvent event_;
};

HostCopy copy_to_host(const at::Tensor& tensor) {
  const On stream(tensor);
  HostCopy copy{at::empty(tensor.sizes(), tensor.options().device(at::kCPU).pinned_memory(true)), std::make_shared<Event>()};
  const c10::cuda::CUDAStream downloads = stream_for(Purpose::kDownloads);
  at::cuda::CUDAEvent computed;
  computed.record();
  computed.block(downloads);
  const c10::cuda::CUDAStreamGuard on_stream(downloads);
  copy.tensor.copy_(tensor, /*non_blocking=*/true);
  copy.done->record();
  tensor.record_stream(downloads);
  return copy;
}

void wait(Event& event) { event.wait(); }

class Graph {
 public:
  Graph(c10::Device device, const std::function<void()>& work) {
    // Engines share the stream, and none may wait for a device while another one records there.
    static std::mutex recording;
    const std::scoped_lock lock(recording);
    const c10::cuda::CUDAGuard guard(device);
    c10::cuda::device_synchronize();
    const c10::cuda::CUDAStreamGuard on_stream(stream_for(Purpose::kRecording));
    work();
    c10::cuda::device_synchronize();
    // Other threads may allocate memory and wait for their events meanwhile: other engines, and models that are being loaded.
    graph_.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
    try {
      work();
    } catch (...) {
      graph_.capture_end();
      throw;
    }
    graph_.capture_end();
  }
  void replay() { graph_.replay(); }

 private:
  at::cuda::CUDAGraph graph_;
};

std::shared_ptr<Graph> record(c10::Device device, const std::function<void()>& work) {
  return std::make_shared<Graph>(device, work);
}

void replay(Graph& graph) { graph.replay(); }

}  // namespace nanochat::ops::cuda
