#pragma once
// The endpoints that generate: one function per protocol, from the body of a request to a plan for its answer. Each throws
// ApiError and what the tokenizer and the schema throw (current_api_error() turns those into 400).

#include <string_view>

#include "serving/answer_session.h"
#include "serving/api_request.h"
#include "serving/served_model.h"

namespace nanochat {

using PlanAnswer = AnswerPlan (*)(const ServedModel& served, std::string_view body, const RequestDefaults& defaults);

AnswerPlan plan_chat(const ServedModel& served, std::string_view body, const RequestDefaults& defaults);
AnswerPlan plan_completion(const ServedModel& served, std::string_view body, const RequestDefaults& defaults);

}  // namespace nanochat
