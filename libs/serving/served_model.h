#pragma once
// The model that a server serves: its engine, its tokenizer, and the values that answers report.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "inference/inference_backend.h"
#include "inference/json_constraint.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {

struct ServedModel {
  std::string id;           // the name in requests and answers, such as "my-run"
  std::int64_t created = 0; // time of the checkpoint, in seconds since 1970
  std::string fingerprint;  // system_fingerprint: depends on weights, tokenizer and program version
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<InferenceBackend> engine;
  std::vector<std::int32_t> stop_tokens;  // an answer ends at one of these
  // Makes a constraint that limits answers to JSON that matches a schema; null stands for any object. Throws ConfigError for a
  // schema that is not supported. If it is empty, requests with response_format or a required tool call are refused.
  std::function<std::unique_ptr<TokenConstraint>(const nlohmann::ordered_json& schema)> make_constraint;
  // The same for a regular expression, choices or a grammar (AnswerForm). If it is empty, requests with guided_regex and its
  // like are refused.
  std::function<std::unique_ptr<TokenConstraint>(AnswerForm form, const nlohmann::ordered_json& value)> make_text_constraint;
  bool has_tools = false;  // chats may use the calculator: the tokenizer has its tokens, and the engine its tool
};

}  // namespace nanochat
