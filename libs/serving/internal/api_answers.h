#pragma once
// The endpoints that generate text. For each protocol, a function turns the body of a request into a plan for its answer. Each
// throws ApiError, and the ConfigError and DataError of the tokenizer and the schema, which current_api_error() turns into
// status 400.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "serving/internal/answer_session.h"
#include "serving/internal/chat_sessions.h"
#include "serving/internal/response_store.h"
#include "serving/internal/served_models.h"
#include "serving/request_defaults.h"

namespace nanochat {

// What a plan is made from.
struct PlanInput {
  const ServedModels& models;
  std::string_view body;
  const RequestDefaults& defaults;
  std::shared_ptr<ResponseStore> responses;  // of /v1/responses
  std::shared_ptr<ChatSessions> sessions;    // of /v1/chat/completions
  std::string_view session_id;               // the header X-Session-Id; empty: none
  std::string owner;  // the API key of the request; empty if the server needs none
};
using PlanAnswer = AnswerPlan (*)(const PlanInput& input);

AnswerPlan plan_chat(const PlanInput& input);
AnswerPlan plan_completion(const PlanInput& input);
AnswerPlan plan_anthropic_message(const PlanInput& input);
AnswerPlan plan_response(const PlanInput& input);

// The number of tokens of the prompt of POST /v1/messages/count_tokens.
std::int64_t count_anthropic_tokens(const ServedModels& models, std::string_view body, const RequestDefaults& defaults);

}  // namespace nanochat
