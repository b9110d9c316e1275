#pragma once
// Between the engine's events and the response of one request, whole or as server-sent events. Errors that come before the first
// token are responses with their status; the head of a stream is sent with its first token, or earlier when a keep-alive is due.

#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "serving/answer_format.h"
#include "serving/http_message.h"
#include "serving/served_model.h"
#include "serving/server_metrics.h"

namespace nanochat {

// What became of a request, for the log.
struct AnswerOutcome {
  EngineUsage usage;
  std::string finish_reasons;  // of all choices: "stop,length"
};

// One prompt of an answer.
struct AnswerPrompt {
  EngineRequest request;  // without on_event
  std::string echo = {};  // stands before each of its choices; empty: nothing does
};

// What to generate and how to answer with it: what a protocol makes of the body of a request.
struct AnswerPlan {
  std::unique_ptr<AnswerFormat> format = {};
  std::vector<AnswerPrompt> prompts = {};
  std::int64_t n = 1;  // choices of each prompt, as in its request
  bool stream = false;
  bool logprobs = false;  // the format is given the tokens of the text
  bool tool_call = false;  // each choice is a call (tool_call.h)
  bool hide_calculator = false;  // calls of the calculator are no part of the text; the format is given them apart
  std::vector<std::string> stop = {};  // a choice ends before these
  std::vector<TokenId> ends = {};  // a choice ends behind these, and they count (ignore_eos being set)
};

class AnswerSession : public HttpBodyStream, public std::enable_shared_from_this<AnswerSession> {
 public:
  AnswerSession(std::shared_ptr<const ServedModel> model, std::shared_ptr<ServerMetrics> metrics,
                std::shared_ptr<HttpExchange> exchange, AnswerPlan plan);

  // Submits everything. Throws ApiError (429, 503) when the engine refuses, and what Engine::submit throws.
  void start();
  AnswerOutcome outcome() const;

  bool read(std::string& out) override;
  std::string_view keep_alive() const override { return ": keep-alive\n\n"; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Choice {
    AnswerText text;
    std::optional<ToolCallText> call = {};
    std::string prefix = {};  // the prompt, for echo
    std::vector<AnswerToken> prefix_tokens = {};
    std::optional<ChoiceEnd> end = {};
    Clock::time_point last_token{};
    bool begun = false, finish_sent = false, stopped = false;
  };
  void cancel();
  void begin_stream();  // holds mutex_
  bool on_event(std::size_t request, const EngineEvent& event);
  void take_prompt(std::size_t request, const EngineEvent& event);
  bool take_token(Choice& choice, const EngineEvent& event);
  void fail(const std::string& message);
  void respond_whole();
  ChoicePart part_of(std::size_t index);
  void write_choice(std::size_t index, const EngineUsage& usage, std::string& out);
  EngineUsage total_usage() const;

  const std::shared_ptr<const ServedModel> model_;
  const std::shared_ptr<ServerMetrics> metrics_;
  const std::shared_ptr<HttpExchange> exchange_;
  const Clock::time_point begin_ = Clock::now();
  AnswerPlan plan_;
  std::vector<std::vector<TokenId>> scored_prompts_;  // of each request; empty where its tokens are not asked for

  mutable std::mutex mutex_;
  std::vector<Choice> choices_;
  std::vector<RequestId> ids_;
  std::vector<EngineUsage> usages_;
  std::size_t remaining_ = 0;  // requests without kDone
  bool streaming_ = false;  // the head of the stream is out
  bool seen_token_ = false;
  bool cancelled_ = false;
  std::optional<ApiError> error_;  // of the engine
};

}  // namespace nanochat
