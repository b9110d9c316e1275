#pragma once
// Parses the body of POST /v1/responses, of OpenAI's API, into the struct of a chat. Throws ApiError (status 400), and the error
// names the field.
//
// Items of the types message, function_call and function_call_output are read. A request with previous_response_id continues the
// conversation of that response: its input and output come before the new input. Its instructions do not.

#include <string>
#include <string_view>

#include "serving/internal/api_request.h"
#include "serving/internal/response_store.h"

namespace nanochat {

struct ResponsesRequest : ChatRequest {
  bool store = true;
  nlohmann::ordered_json settings = {};  // the fields of the request that the response object repeats
  nlohmann::json items = {};  // the whole conversation without instructions, for the store
};

// Finds the previous response of `owner` in `store`.
ResponsesRequest parse_responses_request(std::string_view body, const RequestDefaults& defaults, ResponseStore& store,
                                         const std::string& owner);

}  // namespace nanochat
