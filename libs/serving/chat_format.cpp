#include "serving/internal/chat_format.h"

namespace nanochat {
namespace {

using Json = nlohmann::ordered_json;

// The part that has the name of the function also has "id" and "type". With `indexed`, an entry has its index, as in deltas.
Json call_json(const ToolCallPart& call, bool indexed) {
  Json object = Json::object();
  if (indexed) object["index"] = call.index;
  Json function = Json::object();
  if (!call.name.empty()) {
    object["id"] = call.id;
    object["type"] = "function";
    function["name"] = call.name;
  }
  function["arguments"] = call.arguments;
  object["function"] = std::move(function);
  return object;
}

Json calls_json(const std::vector<ToolCallPart>& calls, bool indexed) {
  Json list = Json::array();
  for (const ToolCallPart& call : calls) list.push_back(call_json(call, indexed));
  return list;
}

// With `indexed`, an entry has its index in the list, as in deltas.
Json calculations_json(const std::vector<AnswerCalculation>& calculations, bool indexed) {
  Json list = Json::array();
  for (const AnswerCalculation& one : calculations) {
    Json entry = Json::object();
    if (indexed) entry["index"] = one.index;
    entry["expression"] = one.expression;
    entry["result"] = one.result;
    entry["offset"] = one.offset;
    list.push_back(std::move(entry));
  }
  return list;
}

}  // namespace

Json ChatFormat::logprobs_json(const std::vector<AnswerToken>& tokens) const {
  if (!logprobs()) return nullptr;
  return {{"content", nanochat::logprobs_json(tokenizer(), tokens, top_logprobs())}, {"refusal", nullptr}};
}

Json ChatFormat::whole_choice(const ChoicePart& part) const {
  const bool only_calls = part.tool_choice == ToolChoice::kRequired || (part.text.empty() && !part.calls.empty());
  Json message = {{"role", "assistant"}, {"content", only_calls ? Json() : Json(part.text)}, {"refusal", nullptr}};
  if (!part.calls.empty()) message["tool_calls"] = calls_json(part.calls, false);
  if (!part.calculations.empty()) message["nanochat_calculations"] = calculations_json(part.calculations, false);
  return choice_json(part.index, "message", std::move(message), logprobs_json(part.tokens), part.end);
}

void ChatFormat::begin(const ChoicePart& part, const EngineUsage& usage, std::string& out) {
  Json delta = {{"role", "assistant"}, {"content", part.tool_choice == ToolChoice::kRequired ? Json() : Json("")}};
  write_chunk(dump(choice_json(part.index, "delta", std::move(delta), nullptr, {})), usage, out);
}

void ChatFormat::delta(const ChoicePart& part, const EngineUsage& usage, std::string& out) {
  if (part.calls.empty() && !logprobs() && part.calculations.empty()) {
    write_chunk(plain_choice(part.index, "delta", R"({"content":)" + dump(part.text) + "}"), usage, out);
    return;
  }
  Json delta = Json::object();
  if (!part.text.empty()) delta["content"] = part.text;
  if (!part.calls.empty()) delta["tool_calls"] = calls_json(part.calls, true);
  if (!part.calculations.empty()) delta["nanochat_calculations"] = calculations_json(part.calculations, true);
  write_chunk(dump(choice_json(part.index, "delta", std::move(delta), logprobs_json(part.tokens), {})), usage, out);
}

void ChatFormat::finish(const ChoicePart& part, const EngineUsage& usage, std::string& out) {
  write_chunk(dump(choice_json(part.index, "delta", Json::object(), nullptr, part.end)), usage, out);
}

}  // namespace nanochat
