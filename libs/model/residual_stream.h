#pragma once
// Internal to model: the residual stream. It begins as the normalised embedding;
// every block reads it through RMSNorm and adds its branch to it. Forward and
// backward functions are side by side; call the backward ones in the reverse order.
//
// In nanochat-2026-07 the stream begins with smeared embeddings and is mixed with its beginning before each layer. A fraction
// of an earlier state is subtracted from it before the head (ops/smear.h, ops/residual_mix.h).

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/weights.h"
#include "ops/embedding.h"

namespace nanochat {

// The stream as a block reads it. RMSNorm's backward pass needs only its output, so the stream itself is not kept for it.
struct Reading {
  at::Tensor y;     // (N, C): normalised
  at::Tensor rstd;  // (N) float32: reciprocal root mean square; undefined without a backward pass

  static Reading make(std::int64_t tokens, std::int64_t width, const at::TensorOptions& options, bool train);
};

// The weights of the stream: the embedding, and in nanochat-2026-07 what mixes it.
struct StreamWeights {
  StreamWeights(const GptConfig& config, Weights& weights);

  double eps;
  std::int64_t layers, backout_after;  // the latter: backout_layer()
  Weight& table;
  bool mixed;  // whether there are those below
  Weight *residual_scale = nullptr, *embedding_scale = nullptr, *smear_scale = nullptr, *smear_gate = nullptr,
         *backout_scale = nullptr;
};

// The tokens of one pass. int32 (N), on the device.
struct TokenIds {
  at::Tensor ids;
  at::Tensor before = {};         // of the token before each, -1 where there is none; undefined where nothing is smeared
  bool before_is_above = true;    // the token before each is that of the row above; else it may not be among the rows
  ops::TokenOrder order = {};     // of ids, for a backward pass
};

class ResidualStream {
 public:
  ResidualStream() = default;
  // What is kept for the backward pass.
  enum class Keep {
    kNothing,     // there is none
    kActivations,
    kBeginnings,  // and the stream before each layer, for begin_layer_again()
  };
  // options: of activations.
  ResidualStream(const StreamWeights& weights, std::int64_t tokens, std::int64_t width, const at::TensorOptions& options,
                 Keep keep);

  const at::Tensor& start() const { return weights_->mixed ? smeared_ : embedded_.y; }  // (N, C)
  // (N, C): a block writes its branch here, and add_branch() or end_layer() adds it.
  at::Tensor& branch() { return branch_; }
  // (N, C): the gradient of the stream, which is also that of the last branch.
  const at::Tensor& gradient() const { return gradient_; }
  // (N, C): a block or the head writes the gradient of its reading here.
  at::Tensor& d_reading() { return d_reading_; }

  // stream = rms_norm(rows of the table), smeared and mixed, and the reading of the first layer.
  void begin(const TokenIds& tokens, Reading& reading);
  // Inside a layer: stream += branch, and the next reading, in one pass over memory.
  void add_branch(Reading& reading);
  // After layer `layer`: the same, for the reading of the next layer or of the head.
  void end_layer(std::int64_t layer, Reading& reading);

  // In a backward pass: the stream as it was when layer `layer` began, and the layer's reading, bit for bit. Overwrites branch().
  void begin_layer_again(std::int64_t layer, Reading& reading);

  // For the reading of the head: gradient = that of the stream after the last layer.
  void end_backward(const Reading& reading);
  // For earlier readings: gradient += d rms_norm(d_reading), in addition to the path around the branch.
  void add_branch_backward(const Reading& reading);
  // For the reading of layer `layer`: gradient = that of the stream before it was mixed, after layer `layer` - 1.
  void begin_layer_backward(std::int64_t layer, const Reading& reading);
  // Accumulates the gradients of the table and of smear, if they are trained. Overwrites d_reading.
  void begin_backward(const TokenIds& tokens);

 private:
  void smear(const TokenIds& tokens);
  void mix(std::int64_t layer, const at::Tensor& branch, Reading& reading);
  void back_out(Reading& reading);
  void back_out_backward();
  void join_halfway_gradient(std::int64_t layer);
  at::Tensor& before_mix(std::int64_t layer);
  bool keeps_beginning(std::int64_t layer) const;

  const StreamWeights* weights_ = nullptr;
  Reading embedded_;  // normalised embeddings: the start of the stream, before it is smeared
  at::Tensor stream_, branch_, gradient_, d_reading_;  // (N, C); stream_ float32 in nanochat-2026-07: see ops/residual_mix.h
  // (N, C) of each layer: the stream before it. Undefined where nothing reads it, and where before_mix_ has it.
  std::vector<at::Tensor> beginnings_;
  // Of nanochat-2026-07.
  at::Tensor smeared_, smear_opened_;  // (N, C): the start of the stream; (N) float32: how far the gate was open
  std::vector<at::Tensor>
      before_mix_;  // (N, C) of each layer: the stream after the layer before; undefined where nothing reads it
  at::Tensor halfway_;  // (N, C): the stream after layer backout_after
  at::Tensor d_smeared_, d_halfway_;  // (N, C) of ops::start_gradient_type()
};

}  // namespace nanochat
