#pragma once
// What is served: an engine, a tokenizer, and what is said about them.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "inference/inference_backend.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {

struct ServedModel {
  std::string id;           // "my-run"
  std::int64_t created = 0; // seconds since 1970, of the checkpoint
  std::string fingerprint;  // system_fingerprint: equal for equal weights, tokenizer and program
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<InferenceBackend> engine;
  std::vector<std::int32_t> stop_tokens;
  // Answers must be JSON that a schema allows, any object for null. Throws ConfigError for what it does not support. Empty:
  // response_format and calls that tool_choice requires are refused.
  std::function<std::unique_ptr<TokenConstraint>(const nlohmann::ordered_json& schema)> make_constraint;
  bool has_tools = false;   // chats may use the calculator: the tokenizer has its tokens, the engine make_tool
};

}  // namespace nanochat
