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

#include "serving/api_request.h"
#include "serving/http_message.h"
#include "serving/response_json.h"
#include "serving/served_model.h"
#include "serving/server_metrics.h"

namespace nanochat {

// What became of a request, for the log.
struct AnswerOutcome {
  EngineUsage usage;
  std::string finish_reasons;  // of all choices: "stop,length"
};

struct AnswerPlan {
  AnswerHead head;
  GenerationFields fields;
  bool echo = false;
  bool tool_call = false;                    // the answer is a call (tool_call.h)
  std::vector<std::string> echo_texts = {};  // of each request's prompt
  std::vector<EngineRequest> requests = {};  // one for each prompt, without on_event
  std::vector<TokenId> ends = {};           // an answer ends behind these, and they count (ignore_eos being set)
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
    std::string call_id = {};
    std::string prefix = {};                // the prompt, for echo
    std::vector<AnswerToken> prefix_tokens = {};
    std::string finish_reason = {};
    Clock::time_point last_token{};
    bool begun = false, finish_sent = false, stopped = false;
  };
  void cancel();
  void begin_stream();  // holds mutex_
  bool on_event(std::size_t request, const EngineEvent& event);
  void take_prompt(std::size_t request, const EngineEvent& event);
  bool take_token(Choice& choice, const EngineEvent& event);
  void fail(std::string message);
  void respond_whole();
  ChoicePart part_of(std::size_t index);
  nlohmann::ordered_json logprobs_of(const ChoicePart& part, bool with_prompt) const;
  void write_choice(std::size_t index, std::string& out);
  void write_event(std::string_view choice, std::string& out, bool last = false);
  EngineUsage total_usage() const;

  const std::shared_ptr<const ServedModel> model_;
  const std::shared_ptr<ServerMetrics> metrics_;
  const std::shared_ptr<HttpExchange> exchange_;
  const Clock::time_point begin_ = Clock::now();
  AnswerPlan plan_;
  std::vector<std::vector<TokenId>> prompts_;  // kept for echo with logprobs

  mutable std::mutex mutex_;
  std::vector<Choice> choices_;
  std::vector<RequestId> ids_;
  std::vector<EngineUsage> usages_;
  std::size_t remaining_ = 0;  // requests without kDone
  std::string event_head_;     // of every event, up to its choice
  bool streaming_ = false;     // the head of the stream is out
  bool seen_token_ = false;
  bool cancelled_ = false;
  std::string error_;          // of the engine
};

}  // namespace nanochat
