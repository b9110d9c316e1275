#pragma once
// A route of the API, and the state of one request while Api handles it.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "serving/api.h"
#include "serving/api_error.h"
#include "serving/internal/answer_admission.h"
#include "serving/internal/answer_cache.h"
#include "serving/internal/api_answers.h"
#include "serving/internal/loading_stream.h"
#include "serving/internal/openai_format.h"
#include "serving/internal/running_answers.h"
#include "serving/internal/trace_context.h"

namespace nanochat {

struct Api::Route {
  const char* method;
  const char* path;        // such as "/v1/models/{id}"; {id} matches any text. Also served without /v1, see api.cpp
  HttpResponse (Api::*function)(Call&);
  bool open = false;       // served without an API key
  PlanAnswer plan = nullptr;  // set if `function` is Api::answer
  HttpResponse (*failure)(const ApiError&) = openai_failure;  // writes an error in the route's protocol
  std::string (*failure_event)(const ApiError&) = openai_error_event;  // in a stream that has begun
};

struct Api::Call : RunningAnswer {
  std::shared_ptr<HttpExchange> exchange;
  const Route* route = nullptr;  // null: no route has this path
  HttpResponse (*failure)(const ApiError&) = openai_failure;  // of the route, or of another route with this path
  std::string allowed;           // the methods of the routes with this path
  std::string argument;          // the text that {id} matched
  std::string id;                // X-Request-Id
  std::optional<TraceContext> trace;       // of the caller
  std::unique_ptr<AnswerAdmission::Place> place;  // set if the request generates text
  std::shared_ptr<LoadingStream> loading;  // set if the request wants a stream and has waited for its model
  std::atomic<bool> waiting{false};        // for its model; whoever sets this to false goes on with the request
  std::atomic<bool> ended{false};          // there is no more response to send
  std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now();  // when the request arrived
  const HttpRequest& request() const { return exchange->request(); }
  bool stream_begun() const { return loading != nullptr && loading->end_wait(); }
  void fail(const ApiError& error) const;
  void abort(const ApiError& error) override;  // while it waits; later, the answer is ended

  // The answer that the request generates, after `place` was set. The client may leave while a worker sets it.
  void set_answer(std::shared_ptr<AnswerSession> answer) {
    const std::lock_guard lock(mutex_);
    answer_ = std::move(answer);
  }
  void set_cached(std::shared_ptr<const CachedAnswer> answer) {  // instead
    const std::lock_guard lock(mutex_);
    cached_ = std::move(answer);
  }
  std::optional<AnswerOutcome> outcome() const {  // nullopt: the request generates no answer, or has not begun
    const std::lock_guard lock(mutex_);
    if (cached_ != nullptr) return cached_->outcome;
    return answer_ == nullptr ? std::nullopt : std::optional(answer_->outcome());
  }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<AnswerSession> answer_;
  std::shared_ptr<const CachedAnswer> cached_;
};

// Returned by an endpoint whose response is sent later, by a session or a callback.
inline HttpResponse later() { return HttpResponse{.status = 0}; }

}  // namespace nanochat
