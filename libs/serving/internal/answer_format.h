#pragma once
// AnswerFormat is the interface of a protocol: it writes answers as bytes. A session (answer_session.h) turns the events of the
// engine into parts of choices, and an AnswerFormat turns those parts into the bytes of its protocol. The session, the routes
// and the HTTP layer do not know the protocol.
//
// An object writes one answer and may keep state. One thread at a time calls it. An answer without a stream is one call of
// whole(). A stream of server-sent events is this sequence of calls:
//
//   begin(first part)  once per choice, before its first delta
//   delta(part)        each time a choice has new content, at most once per token
//   finish(last part)  once per choice, when it has ended
//   end()              once, after all choices
//   fail()             at any point; no call follows it
//
// Each of these calls appends zero or more complete events to `out`. `usage` is the sum over all choices so far.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "inference/engine_request.h"
#include "serving/api_error.h"
#include "serving/http_message.h"
#include "serving/internal/answer_text.h"
#include "serving/internal/tool_call.h"

namespace nanochat {

// Why a choice ended.
enum class ChoiceEnd {
  kStop,  // at a stop token or before a stop string
  kLength,  // at max_tokens or at the end of the context
  kCall,  // at a stop token, with calls of functions
  kCancelled,
  kError,
};
// The finish_reason of OpenAI's API, also used in the log: "stop", "length", "tool_calls", "cancelled", "error".
std::string_view name_of(ChoiceEnd end);

// The new content of one choice; in whole(), its entire content.
struct ChoicePart {
  std::int64_t index = 0;
  std::string text = {};
  std::vector<AnswerToken> tokens = {};  // the tokens of `text`, if the plan asks for logprobs
  bool begins_with_prompt = false;  // echo: tokens[0] is the first token of the prompt, which has no probability
  ToolChoice tool_choice = ToolChoice::kNone;  // kRequired: the choice is a call, and `text` is empty
  std::vector<ToolCallPart> calls = {};  // of functions, after `text`; at most one part of each
  std::vector<AnswerCalculation> calculations = {};  // if the plan hides calculator calls from the text
  std::optional<ChoiceEnd> end = {};  // nullopt: the choice continues
  std::string stop_string = {};  // with `end`: the stop string that ended the text, or empty

  bool has_content() const { return !text.empty() || !tokens.empty() || !calls.empty() || !calculations.empty(); }
  void append(const ChoicePart& next);  // the next part of the same choice
};

// The result of a request, for the log.
struct AnswerOutcome {
  EngineUsage usage = {};
  std::string finish_reasons = {};  // of all choices, separated by commas: "stop,length"
  bool cached = false;  // the answer was not computed
};

class AnswerFormat {
 public:
  virtual ~AnswerFormat() = default;

  // Returns the body of an answer without a stream.
  virtual std::string whole(std::span<const ChoicePart> choices, const EngineUsage& usage) = 0;

  virtual void begin(const ChoicePart& part, const EngineUsage& usage, std::string& out) = 0;
  virtual void delta(const ChoicePart& part, const EngineUsage& usage, std::string& out) = 0;
  virtual void finish(const ChoicePart& part, const EngineUsage& usage, std::string& out) = 0;
  virtual void end(const EngineUsage& usage, std::string& out) = 0;
  virtual void fail(const ApiError& error, std::string& out) = 0;

  // Returns the response to a request that failed before anything was sent.
  virtual HttpResponse failure(const ApiError& error) const = 0;
};

// A new random id: `prefix` and 24 hexadecimal digits.
std::string new_id(std::string_view prefix);

// One line of JSON. Bytes that are not UTF-8 become U+FFFD.
std::string dump(const nlohmann::ordered_json& value);

// Appends a server-sent event that has a name.
void append_event(std::string_view name, std::string_view data, std::string& out);

// The head of a stream of server-sent events.
HttpResponse event_stream(std::shared_ptr<HttpBodyStream> stream);
inline constexpr std::string_view kKeepAlive = ": keep-alive\n\n";  // an event without effect

}  // namespace nanochat
