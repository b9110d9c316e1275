#pragma once
// config.json of a checkpoint: the layout of transformers' NanoChatForCausalLM, and back.

#include <filesystem>

#include <nlohmann/json_fwd.hpp>

#include "model/config.h"

namespace nanochat {

// Fields: architectures, model_type "nanochat", architecture_version 1, vocab_size, hidden_size, intermediate_size,
// num_hidden_layers, num_attention_heads, num_key_value_heads, max_position_embeddings, hidden_act "relu2",
// rms_norm_eps, final_logit_softcapping, rope_theta (and rope_parameters as transformers 5 reads it),
// rope_table_dtype, attention_bias, tie_word_embeddings, torch_dtype, bos/eos ids when known.
nlohmann::json to_hugging_face_config(const GptConfig& config);

// Throws CheckpointError naming the key that is missing, of the wrong type, or of a value this program cannot compute
// (another activation, attention bias, tied embeddings, a newer architecture_version).
// transformers stores the padded vocabulary as vocab_size; `unpadded_vocab_size` restores ours and is optional.
GptConfig from_hugging_face_config(const nlohmann::json& json, const std::filesystem::path& where);

}  // namespace nanochat
