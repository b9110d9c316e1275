#include "checkpoint/model_tensors.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "checkpoint/safetensors_dtype.h"
#include "core/errors.h"

namespace nanochat {

std::vector<ModelTensor> model_tensors(const GptConfig& c) {
  std::vector<ModelTensor> tensors;
  tensors.push_back({"model.embed_tokens.weight", "transformer.wte.weight", c.padded_vocab_size(), c.n_embd, true});
  for (std::int64_t layer = 0; layer < c.n_layer; ++layer) {
    const std::string ours = "model.layers." + std::to_string(layer) + ".";
    const std::string theirs = "transformer.h." + std::to_string(layer) + ".";
    const auto add = [&](const char* name, const char* reference_name, std::int64_t rows, std::int64_t columns) {
      tensors.push_back({ours + name, theirs + reference_name, rows, columns, false});
    };
    add("self_attn.q_proj.weight", "attn.c_q.weight", c.n_head * c.head_dim(), c.n_embd);
    add("self_attn.k_proj.weight", "attn.c_k.weight", c.n_kv_head * c.head_dim(), c.n_embd);
    add("self_attn.v_proj.weight", "attn.c_v.weight", c.n_kv_head * c.head_dim(), c.n_embd);
    add("self_attn.o_proj.weight", "attn.c_proj.weight", c.n_embd, c.n_head * c.head_dim());
    add("mlp.fc1.weight", "mlp.c_fc.weight", c.intermediate_size, c.n_embd);
    add("mlp.fc2.weight", "mlp.c_proj.weight", c.n_embd, c.intermediate_size);
  }
  tensors.push_back({"lm_head.weight", "lm_head.weight", c.padded_vocab_size(), c.n_embd, true});
  return tensors;
}

void check_model_tensors(const GptConfig& config, const TensorSource& source, Naming naming,
                         const std::string& config_name) {
  const auto fail = [&](const std::string& what) {
    throw CheckpointError(source.path().string() + ": " + what);
  };
  // One layer more than the tensors that are there could fill: something is missing then, and n_layer may be nonsense.
  GptConfig listed = config;
  listed.n_layer = std::min(config.n_layer, static_cast<std::int64_t>(source.entries().size()) / 6 + 1);
  const std::vector<ModelTensor> tensors = model_tensors(listed);
  for (const ModelTensor& tensor : tensors) {
    const std::string& name = tensor.named(naming);
    const StoredTensor& entry = source.entry(name);
    if (!c10::isFloatingType(entry.dtype)) {
      fail(name + " holds " + std::string(safetensors_dtype_name(entry.dtype)) + ", expected F32, BF16 or F16");
    }
    const std::vector<std::int64_t> shape = {tensor.rows, tensor.columns};
    const bool unpadded =
        tensor.by_token && entry.shape == std::vector<std::int64_t>{config.vocab_size, tensor.columns};
    if (entry.shape != shape && !unpadded) {
      fail(name + " has shape " + shape_text(entry.shape) + ", but " + config_name + " asks for " + shape_text(shape));
    }
  }
  if (source.entries().size() == tensors.size()) return;
  fail("holds " + std::to_string(source.entries().size()) + " tensors, but the " + std::to_string(config.n_layer) +
       " layers of " + config_name + " have " + std::to_string(tensors.size()) + "; the two do not belong together");
}

void read_model_tensor(const ModelTensor& tensor, const TensorSource& source, Naming naming, at::Tensor& target) {
  const std::string& name = tensor.named(naming);
  const std::int64_t rows = source.entry(name).shape[0];
  at::Tensor stored = target.narrow(0, 0, rows);
  source.read_into(name, stored);
  if (rows < target.size(0)) target.narrow(0, rows, target.size(0) - rows).zero_();
}

NamedTensors read_model_tensors(const GptConfig& config, const TensorSource& source, Naming naming,
                                at::ScalarType dtype) {
  NamedTensors result;
  for (const ModelTensor& tensor : model_tensors(config)) {
    at::Tensor values = at::empty({tensor.rows, tensor.columns}, dtype);
    read_model_tensor(tensor, source, naming, values);
    result.emplace_back(tensor.name, values);
  }
  return result;
}

}  // namespace nanochat
