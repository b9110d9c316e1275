#pragma once
// Prompts for `nanochat infer`, from a file or standard input.

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "tokenizer/conversation.h"

namespace nanochat::cli {

// A prompt as it was given: one of text, token ids, and a conversation that ends with the user's message.
struct Prompt {
  std::string where;  // "--prompt", "prompts.txt:3"
  std::optional<std::string> text;
  std::vector<TokenId> ids;
  std::optional<Conversation> conversation;
};

bool is_blank(std::string_view text);

// A prompt a line, or rows {"prompt": ...}, {"prompt_ids": [...]} or {"messages": [...]}: in a .jsonl, .json or .parquet,
// and in any other file but a .txt, as in "-", standard input, when its first line begins a JSON object. Blank lines and a
// byte order mark are passed over. Throws DataError with file and line.
std::vector<Prompt> read_prompts_file(const std::filesystem::path& path);

}  // namespace nanochat::cli
