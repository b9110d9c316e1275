#include "model/gpt.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "model/activations.h"
#include "model/kv_cache.h"
#include "ops/cast.h"
#include "ops/cross_entropy.h"

namespace nanochat {
namespace {

ops::HeadOptions head_options(const GptConfig& config) {
  return {.vocab_size = config.vocab_size, .softcap = config.softcap};
}

MatrixWeight make_weight(std::int64_t rows, std::int64_t columns, const at::TensorOptions& options) {
  MatrixWeight weight;
  weight.value = at::empty({rows, columns}, options.dtype(at::kFloat));
  weight.compute = options.dtype() == at::kFloat ? weight.value : at::empty({rows, columns}, options);
  return weight;
}

}  // namespace

Gpt::Gpt(const GptConfig& config, at::ScalarType dtype, at::Device device)
    : config_(config), dtype_(dtype), device_(device), weights_(std::make_unique<Weights>()), activations_(std::make_unique<Activations>()) {
  config_.validate();
  TORCH_CHECK(dtype == at::kFloat || dtype == at::kBFloat16, "Gpt: compute dtype must be float32 or bfloat16, got ", dtype);
  const std::int64_t width = config_.n_embd, head_dim = config_.head_dim();
  const at::TensorOptions options = at::TensorOptions(dtype).device(device);
  const auto add = [&](std::string name, ParameterKind kind, const MatrixWeight& weight, std::int64_t first, std::int64_t rows) {
    parameters_.push_back({std::move(name), kind, weight.value.narrow(0, first, rows),
                           weight.compute.narrow(0, first, rows), at::Tensor()});
  };
  weights_->embedding = make_weight(config_.padded_vocab_size(), width, options);
  weights_->head = make_weight(config_.padded_vocab_size(), width, options);
  add("model.embed_tokens.weight", ParameterKind::kEmbedding, weights_->embedding, 0, config_.padded_vocab_size());
  for (std::int64_t l = 0; l < config_.n_layer; ++l) {
    Layer layer{make_weight(config_.qkv_size(), width, options), make_weight(width, config_.n_head * head_dim, options),
                make_weight(config_.intermediate_size, width, options),
                make_weight(width, config_.intermediate_size, options)};
    const std::string prefix = fmt::format("model.layers.{}.", l);
    const std::int64_t q_rows = config_.n_head * head_dim, kv_rows = config_.n_kv_head * head_dim;
    add(prefix + "self_attn.q_proj.weight", ParameterKind::kMatrix, layer.qkv, 0, q_rows);
    add(prefix + "self_attn.k_proj.weight", ParameterKind::kMatrix, layer.qkv, q_rows, kv_rows);
    add(prefix + "self_attn.v_proj.weight", ParameterKind::kMatrix, layer.qkv, q_rows + kv_rows, kv_rows);
    add(prefix + "self_attn.o_proj.weight", ParameterKind::kMatrix, layer.attention_out, 0, width);
    add(prefix + "mlp.fc1.weight", ParameterKind::kMatrix, layer.fc1, 0, config_.intermediate_size);
    add(prefix + "mlp.fc2.weight", ParameterKind::kMatrix, layer.fc2, 0, width);
    weights_->layers.push_back(std::move(layer));
  }
  add("lm_head.weight", ParameterKind::kHead, weights_->head, 0, config_.padded_vocab_size());
}

Gpt::~Gpt() = default;
Gpt::Gpt(Gpt&&) noexcept = default;

at::TensorOptions Gpt::options() const { return at::TensorOptions(dtype_).device(device_); }

void Gpt::refresh_compute() {
  if (dtype_ == at::kFloat) return;
  for (Parameter& parameter : parameters_) ops::copy_converting(parameter.value, parameter.compute);
  if (weights_->head.packed) pack_weights();
}

void Gpt::pack_weights() {
  if (!ops::has_product_kernels(weights_->head.compute)) return;
  const auto pack = [](MatrixWeight& weight) { weight.packed.emplace(weight.compute.t()); };
  for (Layer& layer : weights_->layers) {
    for (MatrixWeight* weight : {&layer.qkv, &layer.attention_out, &layer.fc1, &layer.fc2}) pack(*weight);
  }
  pack(weights_->head);
}

void Gpt::zero_grad() {
  const auto zero = [](MatrixWeight& weight) {
    if (weight.grad.defined()) {
      weight.grad.zero_();
    } else {
      weight.grad = at::zeros(weight.value.sizes(), weight.value.options());
    }
  };
  zero(weights_->embedding);
  zero(weights_->head);
  for (Layer& layer : weights_->layers) {
    for (MatrixWeight* weight : {&layer.qkv, &layer.attention_out, &layer.fc1, &layer.fc2}) zero(*weight);
  }
  if (parameters_.front().grad.defined()) return;
  // Parameters are slices of the fused matrices, in the order of the constructor.
  std::size_t next = 0;
  const auto bind = [&](const MatrixWeight& weight, std::initializer_list<std::int64_t> rows) {
    std::int64_t first = 0;
    for (const std::int64_t n : rows) {
      parameters_[next++].grad = weight.grad.narrow(0, first, n);
      first += n;
    }
  };
  bind(weights_->embedding, {config_.padded_vocab_size()});
  for (const Layer& layer : weights_->layers) {
    const std::int64_t head_dim = config_.head_dim();
    bind(layer.qkv, {config_.n_head * head_dim, config_.n_kv_head * head_dim, config_.n_kv_head * head_dim});
    bind(layer.attention_out, {config_.n_embd});
    bind(layer.fc1, {config_.intermediate_size});
    bind(layer.fc2, {config_.n_embd});
  }
  bind(weights_->head, {config_.padded_vocab_size()});
}

at::Tensor Gpt::take_ids(const at::Tensor& ids, std::int32_t lowest) const {
  TORCH_CHECK(ids.dim() == 2 && ids.scalar_type() == at::kInt && ids.is_contiguous(),
              "Gpt: expected contiguous int32 ids (B, T), got ", ids.scalar_type(), " ", ids.sizes());
  TORCH_CHECK(ids.numel() > 0, "Gpt: no tokens");
  if (!device_.is_cuda() || ids.is_cuda()) return ids;
  const std::int32_t* id = ids.const_data_ptr<std::int32_t>();
  const std::int64_t end = lowest < 0 ? config_.vocab_size : config_.padded_vocab_size();
  for (std::int64_t i = 0; i < ids.numel(); ++i) {
    TORCH_CHECK(id[i] >= lowest && id[i] < end, "Gpt: token id ", id[i],
                " is outside the vocabulary of ", config_.vocab_size);
  }
  // From pinned memory, so that the copy waits for nothing that the GPU still has to do.
  return ids.pin_memory().to(device_, /*non_blocking=*/true);
}

void Gpt::ensure_positions(std::int64_t positions) {
  if (rope_.cos.defined() && rope_.cos.size(0) >= positions) return;
  const std::int64_t size = std::max(positions, config_.sequence_len);
  rope_ = ops::make_rope_table(size, config_.head_dim(), config_.rope_base, config_.rope_table_bf16);
  rope_.cos = rope_.cos.to(device_);
  rope_.sin = rope_.sin.to(device_);
}

void Gpt::take_documents(const at::Tensor& documents, Activations& activations) {
  activations.documents.reset();
  activations.document_rope = {};
  if (!documents.defined()) return;
  activations.documents = ops::make_document_bounds(documents, activations.batch, activations.time, device_);
  ensure_positions(activations.time);
  const at::Tensor positions = ops::positions_in_documents(*activations.documents);
  activations.document_rope = {rope_.cos.index_select(0, positions), rope_.sin.index_select(0, positions)};
}

at::Tensor Gpt::token_losses(const at::Tensor& ids, const at::Tensor& targets, const at::Tensor& documents) {
  const at::Tensor inputs = take_ids(ids, 0), wanted = take_ids(targets, -1);
  Activations activations;
  activations.allocate(config_, options(), ids.size(0), ids.size(1), /*train=*/false);
  take_documents(documents, activations);
  const at::Tensor x = trunk(inputs, activations, nullptr);
  at::Tensor losses = at::empty({ids.numel()}, options().dtype(at::kFloat));
  ops::head_losses(x, weights_->head.compute, wanted.reshape({-1}), head_options(config_), losses);
  return losses.view(ids.sizes());
}

at::Tensor Gpt::forward_backward(const at::Tensor& ids, const at::Tensor& targets, const at::Tensor& scale,
                                 const at::Tensor& documents) {
  const at::Tensor inputs = take_ids(ids, 0), wanted = take_ids(targets, -1);
  if (!parameters_.front().grad.defined()) zero_grad();
  Activations& activations = *activations_;
  activations.allocate(config_, options(), ids.size(0), ids.size(1), /*train=*/true);
  take_documents(documents, activations);
  const at::Tensor x = trunk(inputs, activations, nullptr);
  at::Tensor losses = at::empty({ids.numel()}, options().dtype(at::kFloat));
  ops::head_losses_and_gradients(x, weights_->head.compute, wanted.reshape({-1}), scale.to(device_).reshape({-1}),
                                 head_options(config_), losses, activations.d_norm, weights_->head.grad);
  observe("losses", -1, losses);
  trunk_backward(inputs, activations, activations.d_norm);
  return losses.view(ids.sizes());
}

at::Tensor Gpt::forward(const at::Tensor& ids) {
  const at::Tensor inputs = take_ids(ids, 0);
  Activations activations;
  activations.allocate(config_, options(), ids.size(0), ids.size(1), /*train=*/false);
  const at::Tensor x = trunk(inputs, activations, nullptr);
  return ops::head_logits(x, weights_->head.compute, head_options(config_)).view({ids.size(0), ids.size(1), -1});
}

at::Tensor Gpt::forward_states(const at::Tensor& ids, KvCache& cache) {
  const at::Tensor inputs = take_ids(ids, 0);
  Activations activations;
  activations.allocate(config_, options(), ids.size(0), ids.size(1), /*train=*/false);
  at::Tensor states = trunk(inputs, activations, &cache);
  cache.advance(ids.size(1));
  return states;
}

at::Tensor Gpt::logits(const at::Tensor& states, bool rows_stand_alone) {
  ops::HeadOptions options = head_options(config_);
  options.rows_stand_alone = rows_stand_alone;
  const MatrixWeight& head = weights_->head;
  return ops::head_logits(states, head.compute, options, head.packed ? &*head.packed : nullptr);
}

at::Tensor Gpt::forward_cache(const at::Tensor& ids, KvCache& cache) {
  const at::Tensor states = forward_states(ids, cache).view({ids.size(0), ids.size(1), -1});
  return logits(states.select(1, ids.size(1) - 1).contiguous(), cache.rows_stand_alone());
}

double Gpt::loss(const at::Tensor& ids, const at::Tensor& targets) {
  const double supervised = targets.ge(0).sum().item<double>();
  const double total = token_losses(ids, targets).sum(at::kDouble).item<double>();
  return supervised > 0 ? total / supervised : 0.0;
}

void Gpt::observe(const char* what, std::int64_t layer, const at::Tensor& tensor) const {
  if (!observer_) return;
  observer_(layer < 0 ? std::string(what) : fmt::format("layer {}: {}", layer, what), tensor);
}

}  // namespace nanochat
