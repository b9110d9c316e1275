#pragma once
// Files of a checkpoint that only other programs read: how transformers is to generate, and to render a conversation.

#include <filesystem>
#include <string>

#include <nlohmann/json.hpp>

namespace nanochat {

class Tokenizer;
struct GptConfig;

// Writes into an existing folder all that goes beside the weights: config.json, generation_config.json and, unless it
// is null, the tokenizer's files. `dtype` is that of the weights, "float32". Throws IoError.
void write_hugging_face_files(const std::filesystem::path& folder, const GptConfig& config, const Tokenizer* tokenizer,
                              const std::string& dtype);

// generation_config.json. bos_token_id is <|bos|> (or <|endoftext|>), eos_token_id <|assistant_end|> when the
// tokenizer has it, else bos_token_id; neither without a tokenizer, or when it has no such token.
nlohmann::ordered_json generation_config(const Tokenizer* tokenizer);

// Adds to what the tokenizer wrote as tokenizer_config.json: model_max_length, and for a tokenizer with the chat
// tokens a chat_template. Throws CheckpointError if `text` is not a JSON object.
std::string with_chat_template(const std::string& text, const Tokenizer& tokenizer, std::int64_t sequence_len);

}  // namespace nanochat
