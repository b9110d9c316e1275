#pragma once
// Parses the bodies of POST /v1/chat/completions and /v1/completions into structs. Uses neither a socket nor the engine.
// Every function throws ApiError (status 400), and the error names the field.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include "inference/sampler.h"
#include "serving/request_defaults.h"
#include "tokenizer/conversation.h"

namespace nanochat {

inline constexpr std::int64_t kMaxChoices = 128;  // limit of n, and of n times the number of prompts
inline constexpr std::size_t kMaxStopStrings = 4;
inline constexpr std::size_t kMaxStopCharacters = 256;
inline constexpr std::size_t kMaxStopTokenIds = 128;
inline constexpr std::int64_t kMaxTopLogprobs = 20;

// The fields that chats and completions share.
struct GenerationFields {
  std::string model;                       // empty: the model of this server
  bool stream = false, include_usage = false, continuous_usage = false;
  std::int64_t n = 1;
  std::optional<std::int64_t> max_tokens;  // nullopt: to the end of the context
  std::int64_t min_tokens = 0;
  bool ignore_eos = false;                 // continue after the model's own stop tokens
  std::vector<std::string> stop;
  std::vector<TokenId> stop_token_ids;     // in addition to the model's own
  SamplingOptions sampling;
  bool logprobs = false;
  std::int64_t top_logprobs = 0;
};

enum class ResponseFormat { kText, kJsonObject, kJsonSchema, kToolCall, kRegex, kChoice, kGrammar };

// The form that the answer must have.
struct RequestedFormat {
  ResponseFormat format = ResponseFormat::kText;
  // null: any object (kJsonObject); kToolCall: call_schema(); kRegex, kChoice, kGrammar: the text or the texts.
  nlohmann::ordered_json schema = {};
  std::string format_field = {};       // the field that asks for it: response_format, guided_json, tools ...
};

struct ChatRequest : RequestedFormat {
  GenerationFields fields;
  Conversation conversation;            // in the form that render_prompt accepts
  std::optional<bool> nanochat_tools;   // may the model use its calculator; nullopt: if it can
};

struct CompletionRequest : RequestedFormat {
  GenerationFields fields;
  std::vector<std::variant<std::string, std::vector<TokenId>>> prompts;  // at least one
  bool echo = false;
  bool add_special_tokens = true;  // put <|bos|> before a prompt given as text
};

// A field of another server that this one does not support is an error if it would change the answer. A value that has no
// effect (false, "", a penalty of 1) is accepted.
ChatRequest parse_chat_request(std::string_view body, const RequestDefaults& defaults);
CompletionRequest parse_completion_request(std::string_view body, const RequestDefaults& defaults);

// Parses a list of token ids. `where` is the name of the field in errors.
std::vector<TokenId> parse_token_ids(const nlohmann::json& value, const std::string& where);

// Converts the messages of a chat to a conversation of the kind that the model was trained on:
//   - System and developer messages are joined into one at the beginning; `tools`, the description of the functions on offer,
//     is appended to it.
//   - Then user and assistant take turns. Neighbouring messages of one role are joined.
//   - The result of a tool becomes text of the user, with the name of the tool in front.
//   - Calls of functions by the assistant become JSON in its text. Its calculations (nanochat_calculations, in the form in
//     which answers list them) are inserted at their offsets.
Conversation parse_messages(const nlohmann::json& messages, const std::string& tools);

}  // namespace nanochat
