#pragma once
// Opens a tokenizer from disk, whatever its form.

#include <filesystem>
#include <memory>
#include <string>

#include "tokenizer/tokenizer.h"

namespace nanochat {

struct TokenizerLoadOptions {
  // Split pattern of a rank file: nanochat | gpt2 | cl100k | a regular expression. Empty: known from the SHA-256 of
  // published files (gpt2, cl100k), otherwise nanochat's.
  std::string pattern = {};
  // Special tokens added to a rank file or bare tokenizer.model: "nanochat" (the nine chat tokens) or "none". Empty:
  // "none" for a published gpt2 or cl100k file, otherwise "nanochat". tokenizer.json and tokenizer.pkl
  // name their own.
  std::string special = {};
  // The special token that begins a document. Empty: the one that tokenizer_config.json beside the tokenizer names as
  // "bos_token", if it is one, otherwise <|bos|> or <|endoftext|>.
  std::string bos_token = {};
};

// `path`: a folder (tokenizer.model beside tokenizer.json wins, else tokenizer.json, else tokenizer.model, else
// tokenizer.pkl, else its only .tiktoken file), a tokenizer.json, a tokenizer.model (sentencepiece), a tokenizer.pkl of
// the reference or a .tiktoken rank file. A checkpoint folder is such a folder. Throws TokenizerError saying what is
// missing, truncated or unsupported, with the key or line, and ConfigError for an option that cannot be.
std::shared_ptr<const Tokenizer> load_tokenizer(const std::filesystem::path& path,
                                                const TokenizerLoadOptions& options = {});

// The contents of such a file, whose name tells its form and stands in messages.
std::shared_ptr<const Tokenizer> parse_tokenizer(std::string contents, const std::filesystem::path& name,
                                                 const TokenizerLoadOptions& options = {});

}  // namespace nanochat
