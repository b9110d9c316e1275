#pragma once
// Loads a tokenizer from disk in any supported format.

#include <filesystem>
#include <memory>
#include <string>

#include "tokenizer/tokenizer.h"

namespace nanochat {

struct TokenizerLoadOptions {
  // Split pattern of a rank file: nanochat | gpt2 | cl100k | a regular expression. Empty:
  // known from the SHA-256 of published files (gpt2, cl100k), otherwise nanochat's.
  std::string pattern = {};
  // Special tokens added to a rank file or to a tokenizer.model alone: "nanochat"
  // (the nine chat tokens) or "none". Empty: "none" for a published gpt2 or cl100k
  // file, otherwise "nanochat". tokenizer.json and tokenizer.pkl have their own.
  std::string special = {};
  // Special token that begins a document. Empty: the "bos_token" of the tokenizer_config.json
  // beside the tokenizer if it is a special token, otherwise <|bos|> or <|endoftext|>.
  std::string bos_token = {};
};

// `path`: a folder, a tokenizer.json, a tokenizer.model (SentencePiece), a tokenizer.pkl of the reference or a
// .tiktoken rank file. In a folder (also a checkpoint), the first of these is read: tokenizer.model with
// tokenizer.json, tokenizer.json, tokenizer.model, tokenizer.pkl, the only .tiktoken file. Throws TokenizerError
// for what is missing, truncated or unsupported, with key or line, and ConfigError for a wrong option.
std::shared_ptr<const Tokenizer> load_tokenizer(const std::filesystem::path& path, const TokenizerLoadOptions& options = {});

// The content of such a file. The name determines the format and is used in messages.
std::shared_ptr<const Tokenizer> parse_tokenizer(std::string contents, const std::filesystem::path& name,
                                                 const TokenizerLoadOptions& options = {});

}  // namespace nanochat
