#pragma once
// The endpoints that generate text. For each protocol, a function turns the body of a request into a plan for its answer. Each
// throws ApiError, and the ConfigError and DataError of the tokenizer and the schema, which current_api_error() turns into
// status 400.

#include <string_view>

#include "serving/internal/answer_session.h"
#include "serving/request_defaults.h"
#include "serving/served_model.h"

namespace nanochat {

using PlanAnswer = AnswerPlan (*)(const ServedModel& served, std::string_view body, const RequestDefaults& defaults);

AnswerPlan plan_chat(const ServedModel& served, std::string_view body, const RequestDefaults& defaults);
AnswerPlan plan_completion(const ServedModel& served, std::string_view body, const RequestDefaults& defaults);

}  // namespace nanochat
