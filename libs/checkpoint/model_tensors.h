#pragma once
// Internal to checkpoint: the tensors of a model, by the names that Hugging Face and the reference give them.

#include <c10/core/ScalarType.h>

#include <string>
#include <vector>

#include "checkpoint/tensor_source.h"
#include "model/config.h"

namespace nanochat {

enum class Naming { kHuggingFace, kReference };

struct ModelTensor {
  std::string name;            // model.layers.0.self_attn.q_proj.weight
  std::string reference_name;  // transformer.h.0.attn.c_q.weight
  std::int64_t rows = 0, columns = 0;
  bool by_token = false;  // a row a token: may be stored without the vocabulary's padding
  const std::string& named(Naming naming) const { return naming == Naming::kReference ? reference_name : name; }
};

// All of them, in the order of Gpt::parameters(), which is also the reference's.
std::vector<ModelTensor> model_tensors(const GptConfig& config);

// The tensors of `config` and nothing else, each of its shape and floating. Throws CheckpointError; `config_name` is
// the file that asks for it.
void check_model_tensors(const GptConfig& config, const TensorSource& source, Naming naming,
                         const std::string& config_name);

// Copies of all in `dtype`, by their Hugging Face names, tables padded with zeros. Call check_model_tensors before.
NamedTensors read_model_tensors(const GptConfig& config, const TensorSource& source, Naming naming,
                                at::ScalarType dtype);

// Copies one into `target`, which has every row.
void read_model_tensor(const ModelTensor& tensor, const TensorSource& source, Naming naming, at::Tensor& target);

}  // namespace nanochat
