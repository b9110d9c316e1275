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
    : head_(std::move(head)), item_id_(new_id(request.format == ResponseFormat::kToolCall ? "fc_" : "msg_")),
      tokenizer_(std::move(tokenizer)), store_(request.store ? std::move(store) : nullptr), owner_(std::move(owner)),
      settings_(request.settings), top_logprobs_(request.fields.top_logprobs), items_(request.items),
      beginning_(request.continues() ? request.conversation.messages.back().joined_text() : std::string()) {}

// ------------------------------------------------------------------------------------------------------ the response object

void ResponsesFormat::add(const ChoicePart& part) {
  text_ += part.text;
  if (part.call) {
    call_.name += part.call->name;
    call_.arguments += part.call->arguments;
  }
  for (Json& one : logprobs_json(*tokenizer_, part.tokens, top_logprobs_)) logprobs_.push_back(std::move(one));
}

Json ResponsesFormat::text_part() const {
  return {{"type", "output_text"}, {"text", text_}, {"annotations", Json::array()}, {"logprobs", logprobs_}};
}

Json ResponsesFormat::item_json(std::string_view status) const {
  Json object = {{"id", item_id_}, {"type", item_ == Item::kCall ? "function_call" : "message"}, {"status", status}};
  if (item_ == Item::kCall) {
    object["call_id"] = call_id_;
    object["name"] = call_.name;
    object["arguments"] = call_.arguments;
  } else {
    object["role"] = "assistant";
    object["content"] = status == "in_progress" ? Json::array() : Json::array({text_part()});
  }
  return object;
}

const char* ResponsesFormat::status() const {
  return end_ == ChoiceEnd::kStop || end_ == ChoiceEnd::kCall ? "completed" : "incomplete";
}

Json ResponsesFormat::output() const { return item_ == Item::kNone ? Json::array() : Json::array({item_json(status())}); }

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
  if (item_ == Item::kCall) {
    items.push_back({{"type", "function_call"}, {"call_id", call_id_}, {"name", call_.name}, {"arguments", call_.arguments}});
  } else {
    // The messages that the answer continues and the answer are one message.
    while (!beginning_.empty() && !items.empty() && is_message_of_assistant(items.back())) items.erase(items.size() - 1);
    items.push_back({{"role", "assistant"}, {"content", beginning_ + text_}});
  }
  store_->put(head_.id, {owner_, body, items.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)});
}

std::string ResponsesFormat::whole(std::span<const ChoicePart> choices, const EngineUsage& usage) {
  const ChoicePart& part = choices.front();
  add(part);
  end_ = part.end;
  if (!part.call) item_ = Item::kMessage;
  if (!call_.name.empty()) item_ = Item::kCall;
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

Json ResponsesFormat::of_item() const { return {{"item_id", item_id_}, {"output_index", 0}}; }

void ResponsesFormat::add_item(Item item, std::string& out) {
  item_ = item;
  event("response.output_item.added", {{"output_index", 0}, {"item", item_json("in_progress")}}, out);
  if (item != Item::kMessage) return;
  Json fields = of_item();
  fields["content_index"] = 0;
  fields["part"] = text_part();
  event("response.content_part.added", std::move(fields), out);
}

void ResponsesFormat::begin(const ChoicePart& part, const EngineUsage&, std::string& out) {
  create(out);
  if (!part.call) add_item(Item::kMessage, out);
}

void ResponsesFormat::delta(const ChoicePart& part, const EngineUsage&, std::string& out) {
  if (part.call) {
    if (!part.call->name.empty()) {
      call_.name = part.call->name;
      add_item(Item::kCall, out);
    }
    if (part.call->arguments.empty()) return;
    call_.arguments += part.call->arguments;
    Json fields = of_item();
    fields["delta"] = part.call->arguments;
    event("response.function_call_arguments.delta", std::move(fields), out);
    return;
  }
  const std::size_t known = logprobs_.size();
  add(part);
  if (part.text.empty() && part.tokens.empty()) return;
  Json fields = of_item();
  fields["content_index"] = 0;
  fields["delta"] = part.text;
  fields["logprobs"] = Json::array();
  for (std::size_t i = known; i < logprobs_.size(); ++i) fields["logprobs"].push_back(logprobs_[i]);
  event("response.output_text.delta", std::move(fields), out);
}

void ResponsesFormat::finish(const ChoicePart& part, const EngineUsage&, std::string& out) {
  end_ = part.end;
  if (item_ == Item::kNone) return;
  Json fields = of_item();
  if (item_ == Item::kCall) {
    fields["name"] = call_.name;
    fields["arguments"] = call_.arguments;
    event("response.function_call_arguments.done", std::move(fields), out);
  } else {
    fields["content_index"] = 0;
    Json with_text = fields;
    with_text["text"] = text_;
    with_text["logprobs"] = logprobs_;
    event("response.output_text.done", std::move(with_text), out);
    fields["part"] = text_part();
    event("response.content_part.done", std::move(fields), out);
  }
  event("response.output_item.done", {{"output_index", 0}, {"item", item_json(status())}}, out);
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

}  // namespace nanochat
