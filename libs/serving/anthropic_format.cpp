#include "serving/internal/anthropic_format.h"

#include <spdlog/fmt/fmt.h>

namespace nanochat {
namespace {

using Json = nlohmann::ordered_json;

std::string_view error_type(int status) {
  switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 413: return "request_too_large";
    case 429: return "rate_limit_error";
    case 503: return "overloaded_error";
    case 504: return "timeout_error";
    default: return status < 500 ? "invalid_request_error" : "api_error";
  }
}

Json usage_json(const EngineUsage& usage) {
  Json object;
  object["input_tokens"] = usage.prompt_tokens - usage.cached_tokens;
  object["cache_creation_input_tokens"] = 0;
  object["cache_read_input_tokens"] = usage.cached_tokens;
  object["output_tokens"] = usage.completion_tokens;
  return object;
}

Json call_block(const std::string& name, Json input) {
  return {{"type", "tool_use"}, {"id", new_id("toolu_")}, {"name", name}, {"input", std::move(input)}};
}

}  // namespace

std::string anthropic_error_json(const ApiError& error) {
  return dump(Json{{"type", "error"}, {"error", {{"type", error_type(error.status())}, {"message", error.message()}}}});
}

HttpResponse anthropic_failure(const ApiError& error) { return error.response(anthropic_error_json(error)); }

std::string anthropic_error_event(const ApiError& error) {
  std::string event;
  append_event("error", anthropic_error_json(error), event);
  return event;
}

AnthropicFormat::AnthropicFormat(std::string id, std::string model, std::int64_t max_tokens)
    : id_(std::move(id)), model_(std::move(model)), max_tokens_(max_tokens) {}

Json AnthropicFormat::message(Json content, const EngineUsage& usage) const {
  Json object = {{"id", id_}, {"type", "message"}, {"role", "assistant"}, {"model", model_}};
  object["content"] = std::move(content);
  object["stop_reason"] = stop_reason(usage);
  object["stop_sequence"] = last_.stop_string.empty() ? Json() : Json(last_.stop_string);
  object["usage"] = usage_json(usage);
  return object;
}

Json AnthropicFormat::stop_reason(const EngineUsage& usage) const {
  if (!last_.end) return nullptr;
  switch (*last_.end) {
    case ChoiceEnd::kStop: return last_.stop_string.empty() ? "end_turn" : "stop_sequence";
    case ChoiceEnd::kCall: return "tool_use";
    case ChoiceEnd::kLength: return usage.completion_tokens < max_tokens_ ? "model_context_window_exceeded" : "max_tokens";
    case ChoiceEnd::kCancelled:
    case ChoiceEnd::kError: break;
  }
  return nullptr;
}

std::string AnthropicFormat::whole(std::span<const ChoicePart> choices, const EngineUsage& usage) {
  const ChoicePart& part = choices.front();
  last_.end = part.end;
  last_.stop_string = part.stop_string;
  Json content = Json::array();
  if (!part.text.empty()) content.push_back({{"type", "text"}, {"text", part.text}});
  for (const ToolCallPart& call : part.calls) {
    // A call that was cut off has no input.
    const Json input = Json::parse(call.arguments, nullptr, false);
    content.push_back(call_block(call.name, input.is_object() ? input : Json::object()));
  }
  return dump(message(std::move(content), usage));
}

void AnthropicFormat::begin(const ChoicePart&, const EngineUsage& usage, std::string& out) {
  append_event("message_start", dump({{"type", "message_start"}, {"message", message(Json::array(), usage)}}), out);
}

void AnthropicFormat::start_block(Block kind, Json block, std::string& out) {
  stop_block(out);
  block_ = kind;
  append_event("content_block_start",
               dump({{"type", "content_block_start"}, {"index", blocks_}, {"content_block", std::move(block)}}), out);
}

void AnthropicFormat::stop_block(std::string& out) {
  if (std::exchange(block_, Block::kNone) == Block::kNone) return;
  append_event("content_block_stop", dump({{"type", "content_block_stop"}, {"index", blocks_}}), out);
  ++blocks_;
}

void AnthropicFormat::write_delta(std::string_view type, const char* member, std::string_view text, std::string& out) {
  append_event("content_block_delta",
               fmt::format(R"({{"type":"content_block_delta","index":{},"delta":{{"type":"{}","{}":{}}}}})", blocks_, type,
                           member, dump(Json(text))),
               out);
}

void AnthropicFormat::delta(const ChoicePart& part, const EngineUsage&, std::string& out) {
  if (!part.text.empty()) {
    if (block_ != Block::kText) start_block(Block::kText, {{"type", "text"}, {"text", ""}}, out);
    write_delta("text_delta", "text", part.text, out);
  }
  for (const ToolCallPart& call : part.calls) {
    if (!call.name.empty()) start_block(Block::kCall, call_block(call.name, Json::object()), out);
    if (!call.arguments.empty()) write_delta("input_json_delta", "partial_json", call.arguments, out);
  }
}

void AnthropicFormat::finish(const ChoicePart& part, const EngineUsage&, std::string& out) {
  stop_block(out);
  last_.end = part.end;
  last_.stop_string = part.stop_string;
}

void AnthropicFormat::end(const EngineUsage& usage, std::string& out) {
  Json delta = {{"stop_reason", stop_reason(usage)},
                {"stop_sequence", last_.stop_string.empty() ? Json() : Json(last_.stop_string)}};
  append_event("message_delta", dump({{"type", "message_delta"}, {"delta", std::move(delta)}, {"usage", usage_json(usage)}}),
               out);
  append_event("message_stop", R"({"type":"message_stop"})", out);
}

void AnthropicFormat::fail(const ApiError& error, std::string& out) { out += anthropic_error_event(error); }

HttpResponse AnthropicFormat::failure(const ApiError& error) const { return anthropic_failure(error); }

}  // namespace nanochat
