#pragma once
// The JSON of answers: whole ones, and the chunks of streams, for chats and completions. Pure functions.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "inference/engine_request.h"
#include "serving/answer_text.h"
#include "serving/tool_call.h"

namespace nanochat {

// What all parts of one answer have in common.
struct AnswerHead {
  bool chat = false;
  std::string id;  // "chatcmpl-..."
  std::string model, fingerprint;
  std::int64_t created = 0;  // seconds since 1970
};

// New text of one choice, or all of it.
struct ChoicePart {
  std::int64_t index = 0;
  std::string text = {};
  std::vector<AnswerToken> tokens = {};  // for logprobs
  std::optional<ToolCallPart> call = {};  // of answers that are calls, in place of the text
  std::string call_id = {};
  std::vector<AnswerCalculation> calculations = {};
  std::string finish_reason = {};     // empty: not ended
  bool begins = false;                // the first part of a stream
};

std::string new_id(std::string_view prefix);  // "call_0123...", random
nlohmann::ordered_json usage_json(const EngineUsage& usage);

// "choices" is empty in the chunk that carries the usage alone.
nlohmann::ordered_json answer_json(const AnswerHead& head, bool chunk, nlohmann::ordered_json choices);
nlohmann::ordered_json whole_choice(const AnswerHead& head, const ChoicePart& part, const nlohmann::ordered_json& logprobs);
nlohmann::ordered_json chunk_choice(const AnswerHead& head, const ChoicePart& part, const nlohmann::ordered_json& logprobs);
// The same for text alone in the midst of an answer, as a string: most of what a server writes.
std::string text_chunk_choice(const AnswerHead& head, std::int64_t index, std::string_view text);

// {"content": [{"token", "logprob", "bytes", "top_logprobs"}]}
nlohmann::ordered_json chat_logprobs(const Tokenizer& tokenizer, const std::vector<AnswerToken>& tokens, std::int64_t top);
// {"tokens", "token_logprobs", "top_logprobs", "text_offset"}; `first_is_prompt`: the first token has no probability (echo).
nlohmann::ordered_json completion_logprobs(const Tokenizer& tokenizer, const std::vector<AnswerToken>& tokens, std::int64_t top,
                                           bool first_is_prompt, std::size_t text_offset);

// The text of a token alone: itself, a special token's name, or "bytes:\xe2\x82" for what is no whole character.
std::string token_text(const Tokenizer& tokenizer, TokenId id);

}  // namespace nanochat
