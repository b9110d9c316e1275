#pragma once
// The GPT of the reference's gpt.py: token embedding, RMSNorm, blocks of attention (RoPE, QK-norm, grouped queries) and
// ReLU-squared MLP on a residual stream, RMSNorm, untied head with soft-capped logits.
//
// Forward and backward are written out; there is no autograd graph. Master weights and gradients are float32; with
// compute dtype bfloat16 each weight has a bf16 copy that matrix products read. The optimizer changes `value` and then
// calls (or is told to fill) `compute`. Not thread-safe: activations live in the object.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/config.h"
#include "ops/rope.h"

namespace nanochat {

class KvCache;

enum class ParameterKind { kEmbedding, kHead, kMatrix };

struct Parameter {
  std::string name;      // as in transformers' NanoChatForCausalLM: "model.layers.0.self_attn.q_proj.weight"
  ParameterKind kind = ParameterKind::kMatrix;
  at::Tensor value;      // float32 master weight (rows, columns)
  at::Tensor compute;    // the same tensor, or its bfloat16 copy
  at::Tensor grad;       // float32; undefined until the first forward_backward
};

// Sees intermediate tensors by name, to look for a NaN: see stability.h.
using TensorObserver = std::function<void(const std::string& name, const at::Tensor& tensor)>;

class Gpt {
 public:
  // Weights are uninitialised until init_weights() or a checkpoint fills them. dtype: at::kFloat or at::kBFloat16.
  Gpt(const GptConfig& config, at::ScalarType dtype, at::Device device = at::kCPU);
  ~Gpt();
  Gpt(Gpt&&) noexcept;

  const GptConfig& config() const { return config_; }
  at::ScalarType dtype() const { return dtype_; }
  at::Device device() const { return device_; }
  std::vector<Parameter>& parameters() { return parameters_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }

  // As the reference: embedding N(0, 1), matrices N(0, 1/fan_in * min(1, fan_out/fan_in)), head and the projections
  // back into the residual stream zero. Drawn in the reference's order from LibTorch's generator, so that one seed
  // gives the reference's weights, on any device.
  void init_weights(std::uint64_t seed);
  // compute := value, after values changed, and so what is packed of it. No-op in float32.
  void refresh_compute();
  // For inference on CPUs with kernels that want weights laid out for them (ops/matrix_product.h): lays out a copy, which
  // forward_states() and logits() then read. Once; elsewhere a no-op.
  void pack_weights();
  void zero_grad();

  // ids, targets: int32 (B, T), contiguous, on the CPU or on device(); target -1: ignored. What is returned lies on
  // device(), and on a GPU may still be being computed. Ids outside the vocabulary are a TORCH_CHECK error; of those
  // that came on a GPU, where checking would wait for it, the results are NaN.
  //
  // documents: undefined when a row is one document; else int32 (S + 1) on the CPU, the first of the B * T positions of
  // each document and B * T, every row's beginning among them. Attention then stays inside each document and positions
  // count from its beginning, so that it is as if alone.
  //
  // float32 losses (B, T) in nats, 0 where ignored.
  at::Tensor token_losses(const at::Tensor& ids, const at::Tensor& targets, const at::Tensor& documents = {});
  // The same, and adds gradients of sum(scale * losses) to every grad. scale: float32 (B, T).
  at::Tensor forward_backward(const at::Tensor& ids, const at::Tensor& targets, const at::Tensor& scale,
                              const at::Tensor& documents = {});
  // Soft-capped logits (B, T, vocab_size) float32.
  at::Tensor forward(const at::Tensor& ids);
  // Continues each row of `cache` by ids (B, T) and advances it. Logits (B, vocab_size) of the last position.
  at::Tensor forward_cache(const at::Tensor& ids, KvCache& cache);

  // The two halves of forward_cache, for a batch of which other logits are wanted: normalised states (B * T, C), and soft-
  // capped logits (M, vocab_size) float32 of M states. A cache whose rows are single tokens takes ids (N, 1), wherever
  // in their sequences they stand. rows_stand_alone: KvCache's.
  at::Tensor forward_states(const at::Tensor& ids, KvCache& cache);
  at::Tensor logits(const at::Tensor& states, bool rows_stand_alone = false);

  // Mean over supervised tokens; 0 when there is none.
  double loss(const at::Tensor& ids, const at::Tensor& targets);

  void set_observer(TensorObserver observer) { observer_ = std::move(observer); }

 private:
  struct Layer;        // the tensors of one block
  struct Activations;  // what forward leaves for backward
  struct Weights;

  at::TensorOptions options() const;  // of activations
  void ensure_positions(std::int64_t positions);
  // Runs embedding and blocks; returns the final normalised (B*T, C).
  at::Tensor trunk(const at::Tensor& ids, Activations& activations, KvCache* cache);
  void trunk_backward(const at::Tensor& ids, Activations& activations, const at::Tensor& dx);
  void observe(const char* what, std::int64_t layer, const at::Tensor& tensor) const;
  void take_documents(const at::Tensor& documents, Activations& activations);
  // Checked, and on the device; `lowest`: 0, or -1 where that means "ignored".
  at::Tensor take_ids(const at::Tensor& ids, std::int32_t lowest) const;

  GptConfig config_;
  at::ScalarType dtype_;
  at::Device device_;
  std::vector<Parameter> parameters_;
  std::unique_ptr<Weights> weights_;
  std::unique_ptr<Activations> activations_;
  ops::RopeTable rope_;
  TensorObserver observer_;
};

}  // namespace nanochat
