#pragma once
// How a protocol writes answers. A session (answer_session.h) turns the events of the engine into parts of choices; an
// AnswerFormat turns those parts into the bytes of one protocol. Nothing else in serving knows which protocol it serves.
//
// One object belongs to one answer and is called by one thread at a time. It may keep state: numbers of events, ids, the text
// so far. An answer is either whole, by one call of whole(), or a stream of server-sent events:
//
//   begin(first part)  once per choice, before its first delta
//   delta(part)        whenever there is something new in a choice: the one call per token
//   finish(last part)  once per choice, when it has ended
//   end()              once, after all choices
//   fail()             at any point, in place of all that would follow
//
// Each of these appends zero or more whole events to `out`. `usage` is what all choices have used so far.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "inference/engine_request.h"
#include "serving/answer_text.h"
#include "serving/api_error.h"
#include "serving/http_message.h"
#include "serving/tool_call.h"

namespace nanochat {

// Why a choice ended.
enum class ChoiceEnd {
  kStop,    // at a stop token or before a stop string
  kLength,  // at max_tokens or at the end of the context
  kCall,    // the choice is a call of a function, and it is complete
  kCancelled,
  kError,
};
// OpenAI's words, which the log uses too: "stop", "length", "tool_calls", "cancelled", "error".
std::string_view name_of(ChoiceEnd end);

// What is new of one choice; for whole(), all of it.
struct ChoicePart {
  std::int64_t index = 0;
  std::string text = {};
  std::vector<AnswerToken> tokens = {};   // of the text, where the plan asks for logprobs
  bool begins_with_prompt = false;  // `tokens` begins with the first token of the prompt, which has no probability (echo)
  std::optional<ToolCallPart> call = {};  // of a choice that is a call, in place of the text
  std::vector<AnswerCalculation> calculations = {};  // where the plan hides the calculator
  std::optional<ChoiceEnd> end = {};  // nullopt: more may follow
  std::string stop_string = {};  // with `end`: the stop string that the text ended before, if it was one

  bool has_content() const { return !text.empty() || !tokens.empty() || (call && !call->empty()) || !calculations.empty(); }
};

class AnswerFormat {
 public:
  virtual ~AnswerFormat() = default;

  // The body of an answer without a stream.
  virtual std::string whole(std::span<const ChoicePart> choices, const EngineUsage& usage) = 0;

  virtual void begin(const ChoicePart& part, const EngineUsage& usage, std::string& out) = 0;
  virtual void delta(const ChoicePart& part, const EngineUsage& usage, std::string& out) = 0;
  virtual void finish(const ChoicePart& part, const EngineUsage& usage, std::string& out) = 0;
  virtual void end(const EngineUsage& usage, std::string& out) = 0;
  virtual void fail(const ApiError& error, std::string& out) = 0;

  // The response to a request that failed before anything was sent.
  virtual HttpResponse failure(const ApiError& error) const = 0;
};

std::string new_id(std::string_view prefix);  // "call_0123...", random: 24 hexadecimal digits

}  // namespace nanochat
