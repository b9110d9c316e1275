#include "serving/internal/responses_format.h"

#include <ctime>

namespace nanochat {
namespace {

using Json = nlohmann::ordered_json;

Json response_usage(const EngineUsage& usage) {
  Json object;
  object["input_tokens"] = usage.prompt_tokens;
  object["input_tokens_details"] = {{"cached_tokens", usage.cached_tokens}, {"cache_write_tokens", 0}};
  object["output_tokens"] = usage.completion_tokens;
  object["output_tokens_details"] = {{"reasoning_tokens", 0}};
  object["total_tokens"] = usage.prompt_tokens + usage.completion_tokens;
  return object;
}

// Of an item in the form of the store, where only messages have a role.
bool is_message_of_assistant(const nlohmann::json& item) { return item.value("role", "") == "assistant"; }

}  // namespace

ResponsesFormat::ResponsesFormat(AnswerHead head, const ResponsesRequest& request, std::shared_ptr<const Tokenizer> tokenizer,
                                 std::shared_ptr<ResponseStore> store, std::string owner)
    : head_(std::move(head)), tokenizer_(std::move(tokenizer)), store_(request.store ? std::move(store) : nullptr),
      owner_(std::move(owner)), settings_(request.settings), top_logprobs_(request.fields.top_logprobs), items_(request.items),
      beginning_(request.continues() ? request.conversation.messages.back().joined_text() : std::string()) {}

// ------------------------------------------------------------------------------------------------------ the response object

ResponsesFormat::Item& ResponsesFormat::add_message() { return output_.emplace_back(Item{.id = new_id("msg_")}); }

ResponsesFormat::Item& ResponsesFormat::add_call(const ToolCallPart& call) {
  return output_.emplace_back(Item{.id = new_id("fc_"), .call = ToolCallPart{.name = call.name, .id = call.id}});
}

void ResponsesFormat::add_text(Item& message, const ChoicePart& part) const {
  message.text += part.text;
  for (Json& one : logprobs_json(*tokenizer_, part.tokens, top_logprobs_)) message.logprobs.push_back(std::move(one));
}

Json ResponsesFormat::text_part(const Item& message) {
  return {{"type", "output_text"}, {"text", message.text}, {"annotations", Json::array()}, {"logprobs", message.logprobs}};
}

Json ResponsesFormat::item_json(const Item& item, std::string_view status) {
  Json object = {{"id", item.id}, {"type", item.call ? "function_call" : "message"}, {"status", status}};
  if (item.call) {
    object["call_id"] = item.call->id;
    object["name"] = item.call->name;
    object["arguments"] = item.call->arguments;
  } else {
    object["role"] = "assistant";
    object["content"] = status == "in_progress" ? Json::array() : Json::array({text_part(item)});
  }
  return object;
}

const char* ResponsesFormat::status() const {
  return end_ == ChoiceEnd::kStop || end_ == ChoiceEnd::kCall ? "completed" : "incomplete";
}

Json ResponsesFormat::output() const {
  Json items = Json::array();
  for (const Item& item : output_) items.push_back(item_json(item, &item == &output_.back() ? status() : "completed"));
  return items;
}

Json ResponsesFormat::response(std::string_view status, Json output, const EngineUsage* usage, const ApiError* error) const {
  Json object;
  object["id"] = head_.id;
  object["object"] = "response";
  object["created_at"] = head_.created;
  object["completed_at"] = status == "completed" ? Json(std::time(nullptr)) : Json();
  object["status"] = status;
  object["background"] = false;
  object["error"] = error == nullptr ? Json() : Json{{"code", "server_error"}, {"message", error->message()}};
  object["incomplete_details"] = status == "incomplete" && end_ == ChoiceEnd::kLength ? Json{{"reason", "max_output_tokens"}}
                                                                                      : Json();
  object["model"] = head_.model;
  object["output"] = std::move(output);
  for (const auto& [name, value] : settings_.items()) object[name] = value;
  object["usage"] = usage == nullptr ? Json() : response_usage(*usage);
  return object;
}

// Stores the response with the items that a request which continues it begins with.
void ResponsesFormat::keep(const std::string& body) const {
  if (store_ == nullptr) return;
  nlohmann::json items = items_;
  // The messages that the answer continues and its text are one message.
  const bool begins_with_call = !output_.empty() && output_.front().call;
  std::string text = begins_with_call ? "" : beginning_;
  while (!text.empty() && !items.empty() && is_message_of_assistant(items.back())) items.erase(items.size() - 1);
  if (output_.empty()) items.push_back({{"role", "assistant"}, {"content", text}});
  for (const Item& item : output_) {
    if (item.call) {
      items.push_back({{"type", "function_call"},
                       {"call_id", item.call->id},
                       {"name", item.call->name},
                       {"arguments", item.call->arguments}});
    } else {
      items.push_back({{"role", "assistant"}, {"content", std::exchange(text, {}) + item.text}});
    }
  }
  store_->put(head_.id, {owner_, body, items.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)});
}

std::string ResponsesFormat::whole(std::span<const ChoicePart> choices, const EngineUsage& usage) {
  const ChoicePart& part = choices.front();
  end_ = part.end;
  const bool empty = part.text.empty() && part.calls.empty();
  if (part.tool_choice != ToolChoice::kRequired && (empty || !part.text.empty())) add_text(add_message(), part);
  for (const ToolCallPart& call : part.calls) add_call(call).call->arguments = call.arguments;
  std::string body = dump(response(status(), output(), &usage));
  keep(body);
  return body;
}

// --------------------------------------------------------------------------------------------------------------- the stream

void ResponsesFormat::event(const char* name, Json fields, std::string& out) {
  Json object = {{"type", name}, {"sequence_number", sequence_number_++}};
  for (auto& [key, value] : fields.items()) object[key] = std::move(value);
  append_event(name, dump(object), out);
}

void ResponsesFormat::create(std::string& out) {
  if (std::exchange(created_, true)) return;
  const Json object = response("in_progress", Json::array(), nullptr);
  event("response.created", {{"response", object}}, out);
  event("response.in_progress", {{"response", object}}, out);
}

Json ResponsesFormat::of_item() const { return {{"item_id", output_.back().id}, {"output_index", output_.size() - 1}}; }

void ResponsesFormat::open_item(std::string& out) {
  open_ = true;
  const Item& item = output_.back();
  event("response.output_item.added", {{"output_index", output_.size() - 1}, {"item", item_json(item, "in_progress")}}, out);
  if (item.call) return;
  Json fields = of_item();
  fields["content_index"] = 0;
  fields["part"] = text_part(item);
  event("response.content_part.added", std::move(fields), out);
}

void ResponsesFormat::close_item(std::string_view status, std::string& out) {
  if (!std::exchange(open_, false)) return;
  const Item& item = output_.back();
  Json fields = of_item();
  if (item.call) {
    fields["name"] = item.call->name;
    fields["arguments"] = item.call->arguments;
    event("response.function_call_arguments.done", std::move(fields), out);
  } else {
    fields["content_index"] = 0;
    Json with_text = fields;
    with_text["text"] = item.text;
    with_text["logprobs"] = item.logprobs;
    event("response.output_text.done", std::move(with_text), out);
    fields["part"] = text_part(item);
    event("response.content_part.done", std::move(fields), out);
  }
  event("response.output_item.done", {{"output_index", output_.size() - 1}, {"item", item_json(item, status)}}, out);
}

void ResponsesFormat::begin(const ChoicePart& part, const EngineUsage&, std::string& out) {
  create(out);
  if (part.tool_choice != ToolChoice::kNone) return;  // whether it is a message is not known
  add_message();
  open_item(out);
}

void ResponsesFormat::delta(const ChoicePart& part, const EngineUsage&, std::string& out) {
  // The tokens of a call are not those of a message.
  if (!part.text.empty() || (!part.tokens.empty() && part.tool_choice == ToolChoice::kNone)) {
    if (!open_ || output_.back().call) {
      close_item("completed", out);
      add_message();
      open_item(out);
    }
    Item& message = output_.back();
    const std::size_t known = message.logprobs.size();
    add_text(message, part);
    Json fields = of_item();
    fields["content_index"] = 0;
    fields["delta"] = part.text;
    fields["logprobs"] = Json::array();
    for (std::size_t i = known; i < message.logprobs.size(); ++i) fields["logprobs"].push_back(message.logprobs[i]);
    event("response.output_text.delta", std::move(fields), out);
  }
  for (const ToolCallPart& call : part.calls) {
    if (!call.name.empty()) {
      close_item("completed", out);
      add_call(call);
      open_item(out);
    }
    if (call.arguments.empty()) continue;
    output_.back().call->arguments += call.arguments;
    Json fields = of_item();
    fields["delta"] = call.arguments;
    event("response.function_call_arguments.delta", std::move(fields), out);
  }
}

void ResponsesFormat::finish(const ChoicePart& part, const EngineUsage&, std::string& out) {
  end_ = part.end;
  if (output_.empty() && part.tool_choice != ToolChoice::kRequired) {
    add_message();
    open_item(out);
  }
  close_item(status(), out);
}

void ResponsesFormat::end(const EngineUsage& usage, std::string& out) {
  const bool complete = std::string_view(status()) == "completed";
  const Json object = response(status(), output(), &usage);
  keep(dump(object));
  event(complete ? "response.completed" : "response.incomplete", {{"response", object}}, out);
}

void ResponsesFormat::fail(const ApiError& error, std::string& out) {
  create(out);  // clients expect it first
  event("response.failed", {{"response", response("failed", output(), nullptr, &error)}}, out);
}

HttpResponse ResponsesFormat::failure(const ApiError& error) const { return error.response(); }

std::string response_error_event(const ApiError& error) {
  const auto or_null = [](const std::string& text) { return text.empty() ? Json() : Json(text); };
  std::string event;
  append_event("error",
               dump({{"type", "error"},
                     {"code", or_null(error.code())},
                     {"message", error.message()},
                     {"param", or_null(error.param())},
                     {"sequence_number", 0}}),
               event);
  return event;
}

}  // namespace nanochat
