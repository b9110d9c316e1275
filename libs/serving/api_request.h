#pragma once
// Bodies of POST /v1/chat/completions and /v1/completions as structs. No socket, no engine: only JSON and its rules. Every
// function throws ApiError (400) naming the field.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include "inference/sampler.h"
#include "tokenizer/conversation.h"

namespace nanochat {

inline constexpr std::int64_t kMaxChoices = 128;  // n, and n times the prompts of a completion
inline constexpr std::size_t kMaxStopStrings = 4;
inline constexpr std::size_t kMaxStopCharacters = 256;
inline constexpr std::size_t kMaxStopTokenIds = 128;
inline constexpr std::int64_t kMaxTopLogprobs = 20;

// What a request leaves out.
struct RequestDefaults {
  double temperature = 1.0;
  std::int64_t top_k = 0;
  std::uint64_t seed = 0;  // drawn anew for each request
};

struct GenerationFields {
  std::string model;                       // empty: the one that is served
  bool stream = false, include_usage = false, continuous_usage = false;
  std::int64_t n = 1;
  std::optional<std::int64_t> max_tokens;  // nullopt: what the context leaves
  std::int64_t min_tokens = 0;
  bool ignore_eos = false;                 // of the model's own stop tokens
  std::vector<std::string> stop;
  std::vector<TokenId> stop_token_ids;     // beside the model's own
  SamplingOptions sampling;
  bool logprobs = false;
  std::int64_t top_logprobs = 0;
};

enum class ResponseFormat { kText, kJsonObject, kJsonSchema, kToolCall };

// What the answer must be.
struct RequestedFormat {
  ResponseFormat format = ResponseFormat::kText;
  nlohmann::ordered_json schema = {};  // null: any object (kJsonObject). kToolCall: call_schema()
  std::string format_field = {};       // where the request says so: response_format, guided_json or tools
};

struct ChatRequest : RequestedFormat {
  GenerationFields fields;
  Conversation conversation;            // as render_prompt takes it
  std::optional<bool> nanochat_tools;   // the model's own calculator; nullopt: as the model can and the format allows
};

struct CompletionRequest : RequestedFormat {
  GenerationFields fields;
  std::vector<std::variant<std::string, std::vector<TokenId>>> prompts;  // at least one
  bool echo = false;
  bool add_special_tokens = true;  // <|bos|> before a prompt that is a text
};

// Fields that other servers know and this one neither follows nor may pass over, since they change what an answer is, are
// errors that name them, unless their value asks for nothing (false, "", a penalty of 1).
ChatRequest parse_chat_request(std::string_view body, const RequestDefaults& defaults);
CompletionRequest parse_completion_request(std::string_view body, const RequestDefaults& defaults);

// A list of token ids. `where` names it in errors.
std::vector<TokenId> parse_token_ids(const nlohmann::json& value, const std::string& where);

// messages of a chat as the conversation the model was trained on: system and developer messages together in front, then user
// and assistant by turns, neighbours of a role joined. What a tool gave back is the user's text, headed by the tool's name; calls
// that an assistant made stand in its text as JSON, what its calculator computed (nanochat_calculations, as answers list it)
// where it was; `tools`, the description of those on offer, ends the system message.
Conversation parse_messages(const nlohmann::json& messages, const std::string& tools);

}  // namespace nanochat
