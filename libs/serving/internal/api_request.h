#pragma once
// Parses the bodies of POST /v1/chat/completions and /v1/completions into structs. Uses neither a socket nor the engine.
// Every function throws ApiError (status 400), and the error names the field.

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include "serving/internal/request_fields.h"
#include "serving/internal/tool_call.h"
#include "tokenizer/chat_history.h"
#include "tokenizer/conversation.h"

namespace nanochat {

enum class ResponseFormat { kText, kJsonObject, kJsonSchema, kToolCall, kRegex, kChoice, kGrammar };

// The form that the answer must have.
struct RequestedFormat {
  ResponseFormat format = ResponseFormat::kText;
  // null: any object (kJsonObject); kToolCall: call_schema(); kRegex, kChoice, kGrammar: the text or the texts.
  nlohmann::ordered_json schema = {};
  std::vector<ToolFunction> functions = {};  // that the model may call in its text, or must call (kToolCall)
  std::string format_field = {};       // the field that asks for it: response_format, guided_json, tools ...
};

struct ChatRequest : RequestedFormat {
  GenerationFields fields;
  // In the form that render_prompt accepts, or that render_continuation does if it ends with a message of the assistant.
  Conversation conversation;
  std::string conversation_field = "messages";  // the field that it comes from
  std::optional<bool> nanochat_tools;  // may the model use its calculator; nullopt: if it can
  bool continues() const { return conversation.messages.back().role == "assistant"; }
};

struct CompletionRequest : RequestedFormat {
  GenerationFields fields;
  std::vector<std::variant<std::string, std::vector<TokenId>>> prompts;  // at least one
  bool echo = false;
  bool add_special_tokens = true;  // put <|bos|> before a prompt given as text
};

// A field of another server that this one does not support is an error if it would change the answer. A value that has no
// effect (false, "", a penalty of 1) is accepted.
//
// `complete_history` gets "session_id" and "messages", and returns the messages of the whole conversation; without it, those of
// the request are the conversation.
using CompleteHistory =
    std::function<nlohmann::json(const std::optional<std::string>& session_id, const nlohmann::json& messages)>;
ChatRequest parse_chat_request(std::string_view body, const RequestDefaults& defaults,
                               const CompleteHistory& complete_history = {});
CompletionRequest parse_completion_request(std::string_view body, const RequestDefaults& defaults);

// Converts the messages of a chat to a conversation of the kind that the model was trained on:
//   - System and developer messages are joined into one at the beginning; `tools`, the description of the functions on offer,
//     is appended to it.
//   - Then user and assistant take turns. Neighbouring messages of one role are joined.
//   - The result of a tool becomes text of the user, with the name of the tool in front.
//   - Calls of functions by the assistant become JSON in its text. Its calculations (nanochat_calculations, in the form in
//     which answers list them) are inserted at their offsets.
Conversation parse_messages(const nlohmann::json& messages, const std::string& tools);

// The end of that conversion, which the protocols share. The chat format begins with the user: before a greeting by the
// assistant there is an empty message of the user. A last message of the assistant is the beginning of the answer, unless it is
// empty. `ends_with_call`: the last message has calls of functions, which is an error.
Conversation take_conversation(ChatHistory history, const std::string& tools, const std::string& field, bool ends_with_call);

// Makes the answer a call of a function if `tools` requires one. Returns the description of the functions for the model.
std::string use_tools(const ToolRequest& tools, RequestedFormat& request);

}  // namespace nanochat
