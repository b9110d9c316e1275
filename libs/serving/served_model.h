#pragma once
// The model that a server serves: its engine, its tokenizer, and the values that answers report. A model that is loaded on first
// use has no engine and no tokenizer before that.

#include <atomic>
#include <chrono>
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
  std::string id;  // the name in requests and answers, such as "my-run"
  std::int64_t created = 0;  // time of the checkpoint, in seconds since 1970
  std::string fingerprint;  // system_fingerprint: depends on weights, tokenizer and program version
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<InferenceBackend> engine;  // null: not loaded
  std::int64_t context = 0;  // of a model that is not loaded; else the engine knows
  std::int64_t memory_bytes = 0;  // of weights and KV cache; 0: unknown
  std::vector<std::int32_t> stop_tokens;  // an answer ends at one of these
  // Makes a constraint as answer_constraint() does. If it is empty, requests for answers of a form are refused.
  std::function<std::unique_ptr<TokenConstraint>(AnswerForm form, const nlohmann::ordered_json& value)> make_constraint;
  bool has_tools = false;  // chats may use the calculator: the tokenizer has its tokens, and the engine its tool
  // When a request last named the model, as a count of std::chrono::steady_clock. Null: nobody wants to know.
  std::shared_ptr<std::atomic<std::chrono::steady_clock::rep>> used;

  std::int64_t context_length() const { return engine == nullptr ? context : engine->context_length(); }
};

}  // namespace nanochat
