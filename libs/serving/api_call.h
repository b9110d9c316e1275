#pragma once
// Internal to serving: one request on its way through Api.

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "serving/api.h"
#include "serving/api_answers.h"
#include "serving/api_error.h"

namespace nanochat {

struct Api::Route {
  const char* method;
  const char* path;        // "/v1/models/{id}": the last part is any text
  HttpResponse (Api::*function)(Call&);
  bool open = false;       // needs no key
  PlanAnswer plan = nullptr;  // of an endpoint that generates (Api::answer)
  HttpResponse (*failure)(const ApiError&) = openai_failure;  // how its protocol writes an error
};

struct Api::Call {
  std::shared_ptr<HttpExchange> exchange;
  const Route* route = nullptr;  // null: no such path
  std::string argument;          // what {id} stands for
  std::string id;                // X-Request-Id
  std::shared_ptr<AnswerSession> session;  // of a request that generates
  std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now();
  const HttpRequest& request() const { return exchange->request(); }
};

// A response that comes later, from a session.
inline HttpResponse later() { return HttpResponse{.status = 0}; }

}  // namespace nanochat
