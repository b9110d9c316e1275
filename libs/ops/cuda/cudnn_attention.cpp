#include "ops/cuda/cudnn_attention.h"

#include <ATen/cudnn/Handle.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <cudnn_frontend.h>
#include <dlfcn.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "ops/cuda/tensors.h"

// The frontend calls the copies of cuDNN and of the CUDA libraries that LibTorch has loaded.
namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;
}

namespace nanochat::ops::cuda {
namespace {

namespace fe = cudnn_frontend;

enum Uid : std::int64_t { kQ = 1, kK, kV, kOut, kStatistics, kDOut, kDQ, kDK, kDV };

using Tensors = std::unordered_map<std::int64_t, void*>;
using Attributes = std::shared_ptr<fe::graph::Tensor_attributes>;

// What the kernels of one graph depend on.
struct Key {
  std::vector<std::int64_t> numbers;
  double scale;
  bool operator<(const Key& other) const { return std::tie(numbers, scale) < std::tie(other.numbers, other.scale); }
};

Key key_of(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, std::int64_t window, double scale) {
  Key key{{q.device().index(), window}, scale};
  for (const at::Tensor& x : {q, k, v}) {
    key.numbers.insert(key.numbers.end(), x.sizes().begin(), x.sizes().end());
    key.numbers.insert(key.numbers.end(), x.strides().begin(), x.strides().end());
  }
  return key;
}

// x: (B, T, heads, D); cuDNN's order is (B, heads, T, D).
std::vector<std::int64_t> dims_of(const at::Tensor& x) { return {x.size(0), x.size(2), x.size(1), x.size(3)}; }
std::vector<std::int64_t> strides_of(const at::Tensor& x) { return {x.stride(0), x.stride(2), x.stride(1), x.stride(3)}; }
// Of a contiguous tensor of those sizes.
std::vector<std::int64_t> dense_strides_of(const at::Tensor& x) {
  return {x.size(1) * x.size(2) * x.size(3), x.size(3), x.size(2) * x.size(3), 1};
}

class Graph {
 public:
  Graph() {
    graph_.set_io_data_type(fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
  }

  fe::graph::Graph& operations() { return graph_; }

  Attributes input(Uid uid, const std::vector<std::int64_t>& dims, const std::vector<std::int64_t>& strides) {
    return graph_.tensor(fe::graph::Tensor_attributes().set_uid(uid).set_dim(dims).set_stride(strides));
  }
  static void output(const Attributes& tensor, Uid uid, const at::Tensor& like) {
    tensor->set_output(true).set_uid(uid).set_dim(dims_of(like)).set_stride(dense_strides_of(like));
  }

  // False if cuDNN has no kernel for it.
  bool build() {
    const cudnnHandle_t handle = at::native::getCudnnHandle();
    return graph_.build(handle, {fe::HeurMode_t::A}).is_good() && graph_.get_workspace_size(workspace_bytes_).is_good();
  }

  void run(Tensors tensors, const at::Tensor& like) {
    const at::Tensor workspace = at::empty({workspace_bytes_}, like.options().dtype(at::kByte));
    fe::error_t error = graph_.execute(at::native::getCudnnHandle(), tensors, workspace.data_ptr());
    TORCH_CHECK(error.is_good(), "cuDNN's attention: ", error.get_message());
  }

 private:
  fe::graph::Graph graph_;
  std::int64_t workspace_bytes_ = 0;
};

template <class Options>
Options with_window(std::int64_t window, double scale) {
  Options options;
  options.set_name("window")
      .set_attn_scale(static_cast<float>(scale))
      .set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT)
      .set_diagonal_band_right_bound(0)
      .set_diagonal_band_left_bound(static_cast<int>(window + 1));  // keys, a query's own among them
  return options;
}

struct Graphs {
  Graph forward, backward;
};

// Null if cuDNN has no kernels.
std::unique_ptr<Graphs> build(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, std::int64_t window,
                              double scale) {
  auto graphs = std::make_unique<Graphs>();
  const auto add = [](Graph& graph, Uid uid, const at::Tensor& x) { return graph.input(uid, dims_of(x), strides_of(x)); };
  const std::vector<std::int64_t> statistics = {q.size(0), q.size(2), q.size(1), 1};
  const std::vector<std::int64_t> statistics_strides = {q.size(2) * q.size(1), q.size(1), 1, 1};
  {
    Graph& graph = graphs->forward;
    auto [out,
          logsumexp] = graph.operations().sdpa(add(graph, kQ, q), add(graph, kK, k), add(graph, kV, v),
                                               with_window<fe::graph::SDPA_attributes>(window, scale).set_generate_stats(true));
    Graph::output(out, kOut, q);
    logsumexp->set_output(true)
        .set_uid(kStatistics)
        .set_data_type(fe::DataType_t::FLOAT)
        .set_dim(statistics)
        .set_stride(statistics_strides);
    if (!graph.build()) return nullptr;
  }
  Graph& graph = graphs->backward;
  const auto dense = [&](Uid uid) { return graph.input(uid, dims_of(q), dense_strides_of(q)); };
  const Attributes logsumexp = graph.input(kStatistics, statistics, statistics_strides);
  logsumexp->set_data_type(fe::DataType_t::FLOAT);
  auto [dq, dk, dv] = graph.operations().sdpa_backward(add(graph, kQ, q), add(graph, kK, k), add(graph, kV, v), dense(kOut),
                                                       dense(kDOut), logsumexp,
                                                       with_window<fe::graph::SDPA_backward_attributes>(window, scale));
  Graph::output(dq, kDQ, q);
  Graph::output(dk, kDK, k);
  Graph::output(dv, kDV, v);
  if (!graph.build()) return nullptr;
  return graphs;
}

bool wanted() {
  static const bool is_wanted = [] {
    const char* choice = std::getenv("NANOCHAT_WINDOW_ATTENTION");
    if (choice != nullptr && std::string_view(choice) == "flash") return false;
    fe::cudnn_dlhandle = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_NOLOAD);
    return fe::cudnn_dlhandle != nullptr;
  }();
  return is_wanted;
}

// Null where cuDNN has no kernels, or is not wanted.
Graphs* graphs_for(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, std::int64_t window, double scale) {
  static std::mutex mutex;
  static std::map<Key, std::unique_ptr<Graphs>> all;
  if (!wanted()) return nullptr;
  const std::scoped_lock lock(mutex);
  const auto [found, is_new] = all.try_emplace(key_of(q, k, v, window, scale));
  if (is_new) found->second = build(q, k, v, window, scale);
  return found->second.get();
}

Graphs& existing(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, std::int64_t window, double scale) {
  Graphs* graphs = graphs_for(q, k, v, window, scale);
  TORCH_CHECK(graphs != nullptr, "cuDNN has no attention for q ", q.sizes(), " and k ", k.sizes(), " with a window of ",
              window);
  return *graphs;
}

}  // namespace

bool cudnn_takes_window(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, std::int64_t window, double scale) {
  return graphs_for(q, k, v, window, scale) != nullptr;
}

AttentionForward cudnn_window_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, std::int64_t window,
                                        double scale) {
  AttentionForward forward;
  forward.out = at::empty(q.sizes(), q.options());
  forward.logsumexp = at::empty({q.size(0), q.size(2), q.size(1), 1}, q.options().dtype(at::kFloat));
  existing(q, k, v, window, scale)
      .forward.run({{kQ, q.data_ptr()},
                    {kK, k.data_ptr()},
                    {kV, v.data_ptr()},
                    {kOut, forward.out.data_ptr()},
                    {kStatistics, forward.logsumexp.data_ptr()}},
                   q);
  return forward;
}

AttentionBackward cudnn_window_attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                                                  const at::Tensor& v, const AttentionForward& forward, std::int64_t window,
                                                  double scale) {
  const at::Tensor gradient = dout.contiguous(), out = forward.out.contiguous();
  AttentionBackward backward{at::empty(q.sizes(), q.options()), at::empty(k.sizes(), q.options()),
                             at::empty(v.sizes(), q.options())};
  existing(q, k, v, window, scale)
      .backward.run({{kQ, q.data_ptr()},
                     {kK, k.data_ptr()},
                     {kV, v.data_ptr()},
                     {kOut, out.data_ptr()},
                     {kStatistics, forward.logsumexp.data_ptr()},
                     {kDOut, gradient.data_ptr()},
                     {kDQ, backward.dq.data_ptr()},
                     {kDK, backward.dk.data_ptr()},
                     {kDV, backward.dv.data_ptr()}},
                    q);
  return backward;
}

}  // namespace nanochat::ops::cuda
