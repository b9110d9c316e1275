#include "model/gpt.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "model/attention_block.h"
#include "model/mlp_block.h"
#include "model/pass.h"
#include "model/residual_stream.h"
#include "ops/cross_entropy.h"

namespace nanochat {
namespace {

ops::HeadOptions head_options(const GptConfig& config) { return {.vocab_size = config.vocab_size, .softcap = config.softcap}; }

// From pinned memory, so that the copy waits for nothing that the GPU still has to do.
at::Tensor to_device(const at::Tensor& x, at::Device device) {
  if (!device.is_cuda() || x.is_cuda()) return x;
  return x.pin_memory().to(device, /*non_blocking=*/true);
}

// The positions that the head is computed for: those with a target, if others are many. The head takes a third of a step of a small
// model, and in conversations two positions of five have no target.
at::Tensor head_rows(const at::Tensor& targets, at::Device device) {
  if (targets.is_cuda()) return {};
  const at::Tensor rows = ops::rows_with_target(targets);
  return rows.defined() ? to_device(rows, device) : rows;
}

}  // namespace

struct Gpt::Activations {
  // Which passes these buffers are for.
  enum class Use { kInference, kTraining, kRecompute };
  std::int64_t batch = 0, time = 0;
  Use use = Use::kInference;
  ResidualStream stream;
  std::vector<AttentionBlock::Kept> attention;  // one per layer in training without recomputation, else one for all
  std::vector<MlpBlock::Kept> mlp;  // likewise
  AttentionBlock::Scratch attention_scratch;
  MlpBlock::Scratch mlp_scratch;
  at::Tensor weight_scratch;
  Reading final;  // what the head reads

  AttentionBlock::Kept& attention_of(std::size_t layer) { return attention[use == Use::kTraining ? layer : 0]; }
  MlpBlock::Kept& mlp_of(std::size_t layer) { return mlp[use == Use::kTraining ? layer : 0]; }
  void allocate(const Network& network, const GptConfig& config, const at::TensorOptions& options, std::int64_t batch_size,
                std::int64_t tokens, Use wanted);
};

struct Gpt::Network {
  Network(const GptConfig& config, at::ScalarType dtype, at::Device device, Purpose purpose, Residency residency)
      : weights(config, dtype, device, purpose, residency), stream(config, weights),
        head(weights.at(kAfterLayers, WeightSlot::kHead)) {
    for (std::int64_t layer = 0; layer < config.n_layer; ++layer) {
      attention.emplace_back(config, layer, weights);
      mlp.emplace_back(layer, weights);
    }
  }

  // One whose buffers do for every layer.
  const AttentionBlock& largest_attention() const {
    const auto found = std::find_if(attention.begin(), attention.end(),
                                    [](const AttentionBlock& block) { return block.has_value_embedding(); });
    return found != attention.end() ? *found : attention.front();
  }

  Weights weights;
  StreamWeights stream;
  std::vector<AttentionBlock> attention;
  std::vector<MlpBlock> mlp;
  Linear head;
  Activations training;
};

void Gpt::Activations::allocate(const Network& network, const GptConfig& config, const at::TensorOptions& options,
                                std::int64_t batch_size, std::int64_t tokens, Use wanted) {
  if (batch == batch_size && time == tokens && use == wanted) return;
  *this = Activations();  // give the old buffers back before asking for the new
  const std::int64_t n = batch_size * tokens;
  const bool train = wanted != Use::kInference;
  if (wanted == Use::kTraining) {
    for (std::size_t layer = 0; layer < network.attention.size(); ++layer) {
      attention.push_back(network.attention[layer].make_kept(batch_size, tokens, options, train));
      mlp.push_back(network.mlp[layer].make_kept(n, options, train));
    }
  } else {
    attention.push_back(network.largest_attention().make_kept(batch_size, tokens, options, train));
    mlp.push_back(network.mlp.front().make_kept(n, options, train));
  }
  stream = ResidualStream(network.stream, n, config.n_embd, options,
                          wanted == Use::kInference   ? ResidualStream::Keep::kNothing
                          : wanted == Use::kRecompute ? ResidualStream::Keep::kBeginnings
                                                      : ResidualStream::Keep::kActivations);
  final = Reading::make(n, config.n_embd, options, train);
  if (train) {
    mlp_scratch = network.mlp.front().make_scratch(n, options);
    attention_scratch = network.attention.front().make_scratch(n, options);
    const std::int64_t largest = std::max(config.intermediate_size, config.qkv_size()) * config.n_embd;
    weight_scratch = Linear::make_scratch(largest, options);
  }
  // Set last: if an allocation above throws, the next call starts over.
  batch = batch_size;
  time = tokens;
  use = wanted;
}

Gpt::Gpt(const GptConfig& config, at::ScalarType dtype, at::Device device, Purpose purpose, Residency residency)
    : config_(config), dtype_(dtype), device_(device) {
  config_.validate();
  TORCH_CHECK(dtype == at::kFloat || dtype == at::kBFloat16, "Gpt: compute dtype must be float32 or bfloat16, got ", dtype);
  network_ = std::make_unique<Network>(config_, dtype, device, purpose, residency);
}

Gpt::~Gpt() = default;
Gpt::Gpt(Gpt&&) noexcept = default;

std::vector<Parameter>& Gpt::parameters() { return network_->weights.parameters(); }
const std::vector<Parameter>& Gpt::parameters() const { return network_->weights.parameters(); }
Weights& Gpt::weights() { return network_->weights; }
void Gpt::refresh_compute() { network_->weights.refresh_compute(); }
void Gpt::pack_weights() { network_->weights.pack(); }
void Gpt::zero_grad() {
  network_->weights.zero_grad();
  if (keeper_ != nullptr) keeper_->zero_grad();
}

void Gpt::set_fp8(bool fp8) {
  TORCH_CHECK(!fp8 || ops::has_fp8(device_), "Gpt: this device has no products in 8 bits that are used");
  largest_reading_ = at::Tensor();
  // What a block reads has a root mean square of at most 1.
  if (fp8) largest_reading_ = at::full({1}, std::sqrt(static_cast<double>(config_.n_embd)), at::kFloat).to(device_);
}

void Gpt::set_value(Parameter& parameter, const std::function<void(at::Tensor&)>& fill) {
  if (parameter.value.defined()) return fill(parameter.value);
  TORCH_CHECK(keeper_ != nullptr, "Gpt: nobody keeps the weights of this model");
  at::Tensor whole = at::empty(parameter.spec.shape, at::kFloat);
  fill(whole);
  keeper_->store(parameter, whole);
}

void Gpt::visit_values(const std::function<void(const std::string&, const at::Tensor&)>& visit) const {
  for (const Parameter& parameter : parameters()) {
    if (parameter.value.defined()) visit(parameter.name, parameter.value);
  }
  if (keeper_ != nullptr) keeper_->visit_values(visit);
}

void Gpt::want_weights(std::int64_t layer, PassDirection direction) const {
  if (weights_wanted_ && direction == PassDirection::kForward) weights_wanted_(layer);
  if (keeper_ != nullptr) keeper_->want(layer, direction);
}

void Gpt::begin_gradients(std::int64_t layer) const {
  if (keeper_ != nullptr) keeper_->begin_gradients(layer);
}

void Gpt::end_gradients(std::int64_t layer) const {
  if (gradients_final_) gradients_final_(layer);
  if (keeper_ != nullptr) keeper_->end_gradients(layer);
}

at::TensorOptions Gpt::options() const { return at::TensorOptions(dtype_).device(device_); }

at::Tensor Gpt::take_ids(const at::Tensor& ids, std::int32_t lowest) const {
  TORCH_CHECK(ids.dim() == 2 && ids.scalar_type() == at::kInt && ids.is_contiguous(),
              "Gpt: expected contiguous int32 ids (B, T), got ", ids.scalar_type(), " ", ids.sizes());
  TORCH_CHECK(ids.numel() > 0, "Gpt: no tokens");
  if (!device_.is_cuda() || ids.is_cuda()) return ids;
  const std::int32_t* id = ids.const_data_ptr<std::int32_t>();
  const std::int64_t end = lowest < 0 ? config_.vocab_size : config_.padded_vocab_size();
  for (std::int64_t i = 0; i < ids.numel(); ++i) {
    TORCH_CHECK(id[i] >= lowest && id[i] < end, "Gpt: token id ", id[i], " is outside the vocabulary of ", config_.vocab_size);
  }
  return to_device(ids, device_);
}

const ops::RopeTable& Gpt::rope_for(std::int64_t positions) {
  if (!rope_.cos.defined() || rope_.cos.size(0) < positions) {
    const std::int64_t size = std::max(positions, config_.sequence_len);
    rope_ = ops::make_rope_table(size, config_.head_dim(), config_.rope_base, config_.rope_table_bf16);
    rope_.cos = rope_.cos.to(device_);
    rope_.sin = rope_.sin.to(device_);
  }
  return rope_;
}

Sequences Gpt::sequences(const at::Tensor& ids, const at::Tensor& documents) {
  Sequences result{ids.size(0), ids.size(1), rope_for(ids.size(1)), at::Tensor()};
  if (!documents.defined()) return result;
  result.documents = ops::make_document_bounds(documents, result.batch, result.time, device_);
  const at::Tensor positions = ops::positions_in_documents(*result.documents);
  result.rope = {result.rope.cos.index_select(0, positions), result.rope.sin.index_select(0, positions)};
  return result;
}

Sequences Gpt::sequences(const at::Tensor& ids, KvCache& cache) {
  Sequences result{ids.size(0), ids.size(1), rope_for(cache.capacity()), cache.start()};
  result.cache = &cache;
  return result;
}

namespace {

// The token before each of ids (B, T), as TokenIds has it.
at::Tensor tokens_before(const at::Tensor& ids, const Sequences& where) {
  if (where.cache != nullptr) return where.cache->tokens_before(ids);
  const at::Tensor before = at::full_like(ids, -1);
  if (ids.size(1) > 1) before.narrow(1, 1, ids.size(1) - 1).copy_(ids.narrow(1, 0, ids.size(1) - 1));
  // A document is computed as if it stood alone.
  if (where.documents) {
    const at::Tensor& bounds = where.documents->device_offsets;
    before.view({-1}).index_fill_(0, bounds.narrow(0, 0, bounds.numel() - 1).to(at::kLong), -1);
  }
  return before;
}

}  // namespace

Pass Gpt::make_pass(const at::Tensor& ids, Sequences where) const {
  KvCache* cache = where.cache;
  const LinearMode mode = cache == nullptr           ? LinearMode::kTraining
                          : cache->batch_invariant() ? LinearMode::kBatchInvariant
                                                     : LinearMode::kInference;
  TokenIds tokens{.ids = ids.view({-1}), .before_is_above = cache == nullptr};
  if (network_->stream.mixed) tokens.before = tokens_before(ids, where).view({-1});
  return {.tokens = std::move(tokens), .sequences = std::move(where), .mode = mode, .observer = &observer_};
}

const at::Tensor& Gpt::run(const Pass& pass, Activations& a) const {
  const std::size_t layers = network_->attention.size();
  const auto want = [this](std::int64_t layer) { want_weights(layer, PassDirection::kForward); };
  want(kBeforeLayers);
  a.stream.begin(pass.tokens, a.attention_of(0).input);
  pass.observe("embedding", -1, a.stream.start());
  for (std::size_t layer = 0; layer < layers; ++layer) {
    want(static_cast<std::int64_t>(layer));
    network_->attention[layer].forward(pass, a.attention_of(layer), a.stream.branch());
    a.stream.add_branch(a.mlp_of(layer).input);
    network_->mlp[layer].forward(pass, a.mlp_of(layer), a.stream.branch());
    if (layer + 1 == layers) want(kAfterLayers);
    a.stream.end_layer(static_cast<std::int64_t>(layer), layer + 1 < layers ? a.attention_of(layer + 1).input : a.final);
  }
  return a.final.y;
}

void Gpt::run_backward(const Pass& pass, Activations& a) const {
  ResidualStream& stream = a.stream;
  stream.end_backward(a.final);
  end_gradients(kAfterLayers);
  for (std::size_t layer = network_->attention.size(); layer-- > 0;) {
    const auto number = static_cast<std::int64_t>(layer);
    want_weights(number, PassDirection::kBackward);
    begin_gradients(number);
    // What the forward pass left is the last layer's.
    if (a.use == Activations::Use::kRecompute && layer + 1 < network_->attention.size()) run_layer_again(pass, layer, a);
    network_->mlp[layer].backward(pass, a.mlp_of(layer), stream.gradient(), a.mlp_scratch, stream.d_reading());
    stream.add_branch_backward(a.mlp_of(layer).input);
    pass.observe("gradient of mlp", number, stream.gradient());
    network_->attention[layer].backward(pass, a.attention_of(layer), stream.gradient(), a.attention_scratch,
                                        stream.d_reading());
    stream.begin_layer_backward(number, a.attention_of(layer).input);
    pass.observe("gradient of attention", number, stream.gradient());
    end_gradients(number);
  }
  begin_gradients(kBeforeLayers);
  stream.begin_backward(pass.tokens);
  end_gradients(kBeforeLayers);
}

void Gpt::run_layer_again(const Pass& pass, std::size_t layer, Activations& a) const {
  Pass again = pass;
  again.observer = nullptr;  // it has seen all of this
  a.stream.begin_layer_again(static_cast<std::int64_t>(layer), a.attention_of(layer).input);
  network_->attention[layer].forward(again, a.attention_of(layer), a.stream.branch());
  a.stream.add_branch(a.mlp_of(layer).input);
  network_->mlp[layer].forward_hidden(again, a.mlp_of(layer));
}

at::Tensor Gpt::token_losses(const at::Tensor& ids, const at::Tensor& targets, const at::Tensor& documents) {
  const at::Tensor inputs = take_ids(ids, 0), wanted = take_ids(targets, -1);
  Activations activations;
  activations.allocate(*network_, config_, options(), ids.size(0), ids.size(1), Activations::Use::kInference);
  const at::Tensor& x = run(make_pass(inputs, sequences(ids, documents)), activations);
  at::Tensor losses = at::empty({ids.numel()}, options().dtype(at::kFloat));
  ops::head_losses(x, network_->head.weight().compute, wanted.reshape({-1}), head_options(config_), losses,
                   head_rows(targets, device_));
  return losses.view(ids.sizes());
}

at::Tensor Gpt::forward_backward(const at::Tensor& ids, const at::Tensor& targets, const at::Tensor& scale,
                                 const at::Tensor& documents) {
  const at::Tensor inputs = take_ids(ids, 0), wanted = take_ids(targets, -1);
  if (!parameters().front().grad.defined()) zero_grad();
  Activations& activations = network_->training;
  activations.allocate(*network_, config_, options(), ids.size(0), ids.size(1),
                       recompute_ ? Activations::Use::kRecompute : Activations::Use::kTraining);
  Pass pass = make_pass(inputs, sequences(ids, documents));
  pass.weight_scratch = activations.weight_scratch;
  if (largest_reading_.defined()) {
    pass.mode = LinearMode::kFp8Training;
    pass.largest_reading = largest_reading_;
  }
  pass.tokens.order = ops::order_tokens(pass.tokens.ids);
  const at::Tensor& x = run(pass, activations);
  at::Tensor losses = at::empty({ids.numel()}, options().dtype(at::kFloat));
  Weight& head = network_->head.weight();
  begin_gradients(kAfterLayers);
  ops::head_losses_and_gradients(x, head.compute, wanted.reshape({-1}), to_device(scale, device_).reshape({-1}),
                                 head_options(config_), losses, activations.stream.d_reading(), head.grad,
                                 head_rows(targets, device_));
  pass.observe("losses", -1, losses);
  run_backward(pass, activations);
  return losses.view(ids.sizes());
}

at::Tensor Gpt::forward(const at::Tensor& ids) {
  const at::Tensor inputs = take_ids(ids, 0);
  Activations activations;
  activations.allocate(*network_, config_, options(), ids.size(0), ids.size(1), Activations::Use::kInference);
  const at::Tensor& x = run(make_pass(inputs, sequences(ids, at::Tensor())), activations);
  return logits(x).view({ids.size(0), ids.size(1), -1});
}

at::Tensor Gpt::forward_states(const at::Tensor& ids, KvCache& cache) {
  const at::Tensor inputs = take_ids(ids, 0);
  Activations activations;
  activations.allocate(*network_, config_, options(), ids.size(0), ids.size(1), Activations::Use::kInference);
  at::Tensor states = run(make_pass(inputs, sequences(ids, cache)), activations);
  cache.advance(ids.size(1));
  return states;
}

at::Tensor Gpt::logits(const at::Tensor& states, bool batch_invariant) {
  at::Tensor z = at::empty({states.size(0), network_->head.out_features()}, states.options());
  network_->head.forward(states, z, batch_invariant ? LinearMode::kBatchInvariant : LinearMode::kInference);
  return ops::softcap_logits(z, head_options(config_));
}

at::Tensor Gpt::forward_cache(const at::Tensor& ids, KvCache& cache) {
  const at::Tensor states = forward_states(ids, cache).view({ids.size(0), ids.size(1), -1});
  return logits(states.select(1, ids.size(1) - 1).contiguous(), cache.batch_invariant());
}

double Gpt::loss(const at::Tensor& ids, const at::Tensor& targets) {
  const double supervised = targets.ge(0).sum().item<double>();
  const double total = token_losses(ids, targets).sum(at::kDouble).item<double>();
  return supervised > 0 ? total / supervised : 0.0;
}

}  // namespace nanochat
