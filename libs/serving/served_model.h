#pragma once
// The model that a server serves: its engine, its tokenizer, and the values that answers report.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "inference/inference_backend.h"
#include "inference/answer_constraint.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {

struct ServedModel {
  std::string id;           // the name in requests and answers, such as "my-run"
  std::int64_t created = 0; // time of the checkpoint, in seconds since 1970
  std::string fingerprint;  // system_fingerprint: depends on weights, tokenizer and program version
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<InferenceBackend> engine;
  std::vector<std::int32_t> stop_tokens;  // an answer ends at one of these
  // Makes a constraint as answer_constraint() does. If it is empty, requests for answers of a form are refused.
  std::function<std::unique_ptr<TokenConstraint>(AnswerForm form, const nlohmann::ordered_json& value)> make_constraint;
  bool has_tools = false;  // chats may use the calculator: the tokenizer has its tokens, and the engine its tool
};

}  // namespace nanochat
