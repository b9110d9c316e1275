#pragma once
// Files of a checkpoint that only other programs read: settings for generation, and the chat template.

#include <filesystem>
#include <string>

#include <nlohmann/json.hpp>

namespace nanochat {

class Tokenizer;
struct GptConfig;

// Writes all files except the weights into an existing folder: config.json, generation_config.json and
// the tokenizer's files, unless it is null. `dtype` is that of the weights, "float32". Throws IoError.
void write_hugging_face_files(const std::filesystem::path& folder, const GptConfig& config, const Tokenizer* tokenizer,
                              const std::string& dtype);

// generation_config.json. bos_token_id is <|bos|> (or <|endoftext|>); eos_token_id is <|assistant_end|> if the
// tokenizer has it, otherwise bos_token_id. Neither is present without a tokenizer or without such a token.
nlohmann::ordered_json generation_config(const Tokenizer* tokenizer);

// Adds model_max_length to the tokenizer's tokenizer_config.json, and a chat_template if
// the tokenizer has the chat tokens. Throws CheckpointError if `text` is not a JSON object.
std::string with_chat_template(const std::string& text, const Tokenizer& tokenizer, std::int64_t sequence_len);

}  // namespace nanochat
