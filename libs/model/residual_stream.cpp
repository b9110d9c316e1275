#include "model/residual_stream.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include "ops/embedding.h"
#include "ops/residual_mix.h"
#include "ops/rms_norm.h"
#include "ops/smear.h"

namespace nanochat {
namespace {

const at::Tensor kNone;

// Number `layer` of scales, (1), and where its gradient goes: a scrap where the weight is not trained.
at::Tensor scale_of(const Weight& scales, std::int64_t layer) { return scales.value.narrow(0, layer, 1); }
at::Tensor gradient_of(const Weight& scales, std::int64_t layer) {
  return scales.grad.defined() ? scales.grad.narrow(0, layer, 1) : at::zeros({1}, scales.value.options());
}
at::Tensor gradient_of(const Weight& weight) {
  return weight.grad.defined() ? weight.grad : at::zeros(weight.value.sizes(), weight.value.options().dtype(at::kFloat));
}

}  // namespace

Reading Reading::make(std::int64_t tokens, std::int64_t width, const at::TensorOptions& options, bool train) {
  return {at::empty({tokens, width}, options), train ? at::empty({tokens}, options.dtype(at::kFloat)) : at::Tensor()};
}

StreamWeights::StreamWeights(const GptConfig& config, Weights& weights)
    : eps(config.rms_norm_eps), layers(config.n_layer), backout_after(backout_layer(config)),
      table(weights.at(kBeforeLayers, WeightSlot::kTokenEmbedding)), mixed(config.is_2026()) {
  if (!mixed) return;
  residual_scale = &weights.at(kBeforeLayers, WeightSlot::kResidualScale);
  embedding_scale = &weights.at(kBeforeLayers, WeightSlot::kEmbeddingScale);
  smear_scale = &weights.at(kBeforeLayers, WeightSlot::kSmearScale);
  smear_gate = &weights.at(kBeforeLayers, WeightSlot::kSmearGate);
  backout_scale = &weights.at(kAfterLayers, WeightSlot::kBackoutScale);
}

ResidualStream::ResidualStream(const StreamWeights& weights, std::int64_t tokens, std::int64_t width,
                               const at::TensorOptions& options, Keep keep)
    : weights_(&weights), embedded_(Reading::make(tokens, width, options, keep != Keep::kNothing)),
      stream_(at::empty({tokens, width}, weights.mixed ? options.dtype(at::kFloat) : options)),
      branch_(at::empty({tokens, width}, options)) {
  const auto make = [&](const at::TensorOptions& with) { return at::empty({tokens, width}, with); };
  const bool train = keep != Keep::kNothing;
  if (train) {
    gradient_ = make(options);
    d_reading_ = make(options);
  }
  if (!weights.mixed) {
    beginnings_.resize(static_cast<std::size_t>(weights.layers));
    // The first layer's is the embedding. The last layer is not computed again.
    for (std::size_t layer = 1; keep == Keep::kBeginnings && layer + 1 < beginnings_.size(); ++layer)
      beginnings_[layer] = make(options);
    return;
  }
  smeared_ = make(options);
  halfway_ = make(options);
  before_mix_.resize(static_cast<std::size_t>(weights.layers));
  if (!train) return;
  before_mix_[0] = smeared_;
  for (std::int64_t layer = 1; layer < weights.layers; ++layer) {
    if (layer - 1 != weights.backout_after) before_mix_[static_cast<std::size_t>(layer)] = make(options);
  }
  smear_opened_ = at::empty({tokens}, options.dtype(at::kFloat));
  d_smeared_ = make(options.dtype(ops::start_gradient_type(options)));
  d_halfway_ = make(options.dtype(ops::start_gradient_type(options)));
}

void ResidualStream::smear(const TokenIds& tokens) {
  at::Tensor previous;
  if (!tokens.before_is_above) {
    previous = at::empty(branch_.sizes(), branch_.options());
    at::Tensor none;
    ops::embedding(weights_->table.compute, tokens.before.clamp_min(0), branch_);
    ops::rms_norm(branch_, previous, none, weights_->eps);
  }
  ops::smear(embedded_.y, previous, tokens.before, weights_->smear_gate->compute, weights_->smear_scale->value, smeared_,
             smear_opened_);
}

void ResidualStream::begin(const TokenIds& tokens, Reading& reading) {
  ops::embedding(weights_->table.compute, tokens.ids, branch_);
  ops::rms_norm(branch_, embedded_.y, embedded_.rstd, weights_->eps);
  if (weights_->mixed) {
    smear(tokens);
    stream_.copy_(smeared_);
    return mix(0, kNone, reading);
  }
  stream_.copy_(embedded_.y);
  ops::rms_norm(stream_, reading.y, reading.rstd, weights_->eps);
}

void ResidualStream::begin_backward(const TokenIds& tokens) {
  const bool smear_trained = weights_->mixed && weights_->smear_gate->grad.defined();
  if (!weights_->table.grad.defined() && !smear_trained) return;
  if (weights_->mixed) {
    d_smeared_.add_(gradient_);
    ops::smear_backward(d_smeared_, embedded_.y, tokens.before, weights_->smear_gate->compute, weights_->smear_scale->value,
                        smear_opened_, gradient_, gradient_of(*weights_->smear_gate), gradient_of(*weights_->smear_scale));
    if (!weights_->table.grad.defined()) return;
  }
  ops::rms_norm_backward(gradient_, embedded_.y, embedded_.rstd, d_reading_, /*accumulate=*/false);
  ops::embedding_backward(d_reading_, tokens.ids, weights_->table.grad, tokens.order);
}

void ResidualStream::add_branch(Reading& reading) {
  ops::add_rms_norm(stream_, branch_, reading.y, reading.rstd, weights_->eps);
}

void ResidualStream::add_branch_backward(const Reading& reading) {
  ops::rms_norm_backward(d_reading_, reading.y, reading.rstd, gradient_, /*accumulate=*/true);
}

void ResidualStream::end_layer(std::int64_t layer, Reading& reading) {
  if (!weights_->mixed) {
    add_branch(reading);
    if (keeps_beginning(layer + 1)) beginnings_[static_cast<std::size_t>(layer + 1)].copy_(stream_);
    return;
  }
  layer + 1 < weights_->layers ? mix(layer + 1, branch_, reading) : back_out(reading);
}

bool ResidualStream::keeps_beginning(std::int64_t layer) const {
  const auto place = static_cast<std::size_t>(layer);
  return place < beginnings_.size() && beginnings_[place].defined();
}

void ResidualStream::begin_layer_again(std::int64_t layer, Reading& reading) {
  if (!weights_->mixed) {
    TORCH_CHECK(layer == 0 || keeps_beginning(layer), "ResidualStream: nothing was kept of the beginning of layer ", layer);
    stream_.copy_(layer == 0 ? start() : beginnings_[static_cast<std::size_t>(layer)]);
    return ops::rms_norm(stream_, reading.y, reading.rstd, weights_->eps);
  }
  stream_.copy_(before_mix(layer));
  at::Tensor nowhere;
  ops::residual_mix(stream_, kNone, smeared_, scale_of(*weights_->residual_scale, layer),
                    scale_of(*weights_->embedding_scale, layer), nowhere, reading.y, reading.rstd, weights_->eps);
}

void ResidualStream::begin_layer_backward(std::int64_t layer, const Reading& reading) {
  if (!weights_->mixed) return add_branch_backward(reading);
  const bool is_first = layer + 1 == weights_->layers;  // that a backward pass comes to
  ops::residual_mix_backward({d_reading_, reading.y, reading.rstd}, gradient_, before_mix(layer), smeared_,
                             scale_of(*weights_->residual_scale, layer), scale_of(*weights_->embedding_scale, layer),
                             d_smeared_,
                             /*accumulate=*/!is_first, gradient_of(*weights_->residual_scale, layer),
                             gradient_of(*weights_->embedding_scale, layer));
  join_halfway_gradient(layer - 1);
}

void ResidualStream::end_backward(const Reading& reading) {
  ops::rms_norm_backward(d_reading_, reading.y, reading.rstd, gradient_, /*accumulate=*/false);
  if (weights_->mixed) back_out_backward();
}

// Where the stream before the mix of a layer is written to, if anything reads it.
at::Tensor& ResidualStream::before_mix(std::int64_t layer) {
  return layer - 1 == weights_->backout_after ? halfway_ : before_mix_[static_cast<std::size_t>(layer)];
}

void ResidualStream::mix(std::int64_t layer, const at::Tensor& branch, Reading& reading) {
  // The stream before layer 0 is smeared_ itself.
  at::Tensor nowhere;
  ops::residual_mix(stream_, branch, smeared_, scale_of(*weights_->residual_scale, layer),
                    scale_of(*weights_->embedding_scale, layer), layer == 0 ? nowhere : before_mix(layer), reading.y,
                    reading.rstd, weights_->eps);
}

void ResidualStream::back_out(Reading& reading) {
  const at::Tensor one = at::ones({1}, weights_->backout_scale->value.options()), share = weights_->backout_scale->value.neg();
  at::Tensor nowhere;
  const bool of_last = weights_->backout_after + 1 == weights_->layers;
  if (of_last) {
    halfway_.copy_(stream_.add_(branch_));
    stream_.copy_(halfway_);
  }
  ops::residual_mix(stream_, of_last ? kNone : branch_, halfway_, one, share, nowhere, reading.y, reading.rstd, weights_->eps);
}

void ResidualStream::back_out_backward() {
  const at::TensorOptions options = weights_->backout_scale->value.options();
  const at::Tensor one = at::ones({1}, options), share = weights_->backout_scale->value.neg(),
                   d_share = at::zeros({1}, options);
  ops::residual_mix_backward({}, gradient_, kNone, halfway_, one, share, d_halfway_, /*accumulate=*/false, kNone, d_share);
  gradient_of(*weights_->backout_scale).sub_(d_share);
  join_halfway_gradient(weights_->layers - 1);
}

// Where the backward pass comes to the output of the layer that backout takes.
void ResidualStream::join_halfway_gradient(std::int64_t layer) {
  if (layer == weights_->backout_after) gradient_.add_(d_halfway_);
}

}  // namespace nanochat
