#pragma once
// Conversion of config.json of a checkpoint, in the layout of transformers' NanoChatForCausalLM. docs/formats/checkpoint.md
// describes every field. Source: configuration_nanochat.py and modeling_nanochat.py of transformers.

#include <filesystem>

#include <nlohmann/json_fwd.hpp>

#include "model/config.h"

namespace nanochat {

// The newest version of tensors and fields that this program supports; checkpoints of a newer one are refused.
inline constexpr int kArchitectureVersion = 2;

// Of nanochat-2025-12. Fields: architectures, model_type "nanochat", architecture_version 1, vocab_size (padded, as the tables are),
// unpadded_vocab_size (ours), hidden_size, intermediate_size, num_hidden_layers, num_attention_heads,
// num_key_value_heads, max_position_embeddings, hidden_act "relu2", rms_norm_eps, final_logit_softcapping (null:
// none), rope_theta and rope_parameters (as transformers 4 and 5 read it), rope_table_dtype, attention_bias,
// tie_word_embeddings, dtype and torch_dtype. bos_token_id, eos_token_id and pad_token_id are null: otherwise
// transformers would assume ids; save_checkpoint fills in those that the tokenizer has.
// nanochat-2026-07 has model_type and architecture "nanochat-2026-07", architecture_version 2, window_pattern and qk_scale, and
// no architectures, since transformers has no class for it.
nlohmann::ordered_json to_hugging_face_config(const GptConfig& config);

// Reads rope_theta in rope_parameters or beside it; rope_table_dtype may be absent (float32).
// Throws CheckpointError with the key that is missing, has a wrong type, or has an unsupported
// value (another activation, attention bias, tied embeddings, a scaled RoPE, a newer
// architecture_version). Without unpadded_vocab_size, every row of the tables is a token.
GptConfig from_hugging_face_config(const nlohmann::json& json, const std::filesystem::path& where);

}  // namespace nanochat
