#pragma once
// AnswerSession turns the events of the engine into the response of one request, whole or as server-sent events. The head of a
// stream is sent with its first token, or earlier if a keep-alive is due. An error before that is a response with an HTTP
// status; an error after it is an event of the stream.
//
// The engine's thread delivers tokens and the connection's thread reads text. A mutex protects what they share.

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "serving/http_message.h"
#include "serving/internal/answer_cache.h"
#include "serving/internal/answer_format.h"
#include "serving/internal/chat_sessions.h"
#include "serving/internal/running_answers.h"
#include "serving/internal/server_metrics.h"
#include "serving/served_model.h"

namespace nanochat {

// One prompt of an answer.
struct AnswerPrompt {
  EngineRequest request;  // on_event is not set
  std::string echo = {};  // text to put before each of its choices
};

// What to generate, and how to write the answer. Each protocol makes a plan from the body of a request (api_answers.h).
struct AnswerPlan {
  std::shared_ptr<const ServedModel> served = {};
  std::unique_ptr<AnswerFormat> format = {};
  std::vector<AnswerPrompt> prompts = {};
  std::int64_t n = 1;  // number of choices per prompt; equals n of each request
  bool stream = false;
  bool logprobs = false;  // pass tokens to the format
  ToolChoice tool_choice = ToolChoice::kNone;  // whether choices may have calls, or each is a call
  std::shared_ptr<const ByteDfa> call_beginning = {};  // tool_call.h; null with kNone
  bool hide_calculator = false;  // pass calculator calls to the format apart from the text
  std::vector<std::string> stop = {};  // stop strings: a choice ends before one of these
  std::vector<TokenId> ends = {};  // a choice ends after one of these tokens, which is part of the answer
  std::shared_ptr<ChatSessions::Turn> turn = {};  // of the session that keeps the answer; with one choice
  std::function<void(CachedAnswer)> keep = {};  // gets the complete answer
};

class AnswerSession : public HttpBodyStream, public RunningAnswer, public std::enable_shared_from_this<AnswerSession> {
 public:
  // `begun`: the head of the stream has been sent, and the caller has the session read.
  AnswerSession(std::shared_ptr<ServerMetrics> metrics, std::shared_ptr<HttpExchange> exchange, AnswerPlan plan,
                bool begun = false);

  // Submits all prompts to the engine. Throws ApiError if the engine refuses one (429: queue full, 503: shutting down), and
  // what Engine::submit throws.
  void start();
  AnswerOutcome outcome() const;
  // The error is the response, or the last event of a stream that has begun. The engine stops working on the answer. Not to be
  // called on the engine's thread.
  void abort(const ApiError& error) override;

  // HttpBodyStream, called on the connection's thread.
  bool read(std::string& out) override;
  std::string_view keep_alive() const override { return kKeepAlive; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Choice {
    AnswerText text;
    std::optional<ToolCallReader> calls = {};
    std::string prefix = {};  // the prompt, for echo
    std::vector<AnswerToken> prefix_tokens = {};
    std::optional<ChoiceEnd> end = {};
    Clock::time_point last_token{};
    bool begun = false, finish_sent = false, stopped = false;
    ChoicePart whole = {};  // all parts so far, if the answer is kept
  };
  void cancel();
  void begin_stream();  // the caller holds mutex_
  bool on_event(std::size_t request, const EngineEvent& event);
  void take_prompt(std::size_t request, const EngineEvent& event);
  bool take_token(Choice& choice, const EngineEvent& event);
  void fail(const ApiError& error);  // the caller holds mutex_
  void respond_whole();
  void keep();
  ChoicePart part_of(std::size_t index);
  void write_choice(std::size_t index, const EngineUsage& usage, std::string& out);
  EngineUsage total_usage() const;
  AnswerOutcome current_outcome() const;  // the caller holds mutex_

  const std::shared_ptr<ServerMetrics> metrics_;
  const std::shared_ptr<HttpExchange> exchange_;
  AnswerPlan plan_;
  std::vector<std::vector<TokenId>> scored_prompts_;  // ids of each prompt whose log probabilities are wanted; else empty

  mutable std::mutex mutex_;
  std::vector<Choice> choices_;
  std::vector<RequestId> ids_;
  std::vector<EngineUsage> usages_;
  std::size_t remaining_ = 0;  // requests that have not sent kDone
  bool streaming_;  // the head of the stream has been sent
  bool seen_token_ = false;
  bool cancelled_ = false;
  std::optional<ApiError> error_;  // why the answer ended early
};

}  // namespace nanochat
