#include "serving/internal/answer_format.h"

#include <random>

#include <spdlog/fmt/fmt.h>

namespace nanochat {

std::string_view name_of(ChoiceEnd end) {
  switch (end) {
    case ChoiceEnd::kStop: return "stop";
    case ChoiceEnd::kLength: return "length";
    case ChoiceEnd::kCall: return "tool_calls";
    case ChoiceEnd::kCancelled: return "cancelled";
    case ChoiceEnd::kError: break;
  }
  return "error";
}

void ChoicePart::append(const ChoicePart& next) {
  index = next.index;
  text += next.text;
  begins_with_prompt = begins_with_prompt || next.begins_with_prompt;
  tokens.insert(tokens.end(), next.tokens.begin(), next.tokens.end());
  tool_choice = next.tool_choice;
  for (const ToolCallPart& call : next.calls) {
    if (!calls.empty() && calls.back().index == call.index) {
      calls.back().arguments += call.arguments;
    } else {
      calls.push_back(call);
    }
  }
  calculations.insert(calculations.end(), next.calculations.begin(), next.calculations.end());
  end = next.end;
  stop_string = next.stop_string;
}

std::string new_id(std::string_view prefix) {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return fmt::format("{}{:016x}{:08x}", prefix, random(), random() & 0xffffffffu);
}

std::string dump(const nlohmann::ordered_json& value) {
  return value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

void append_event(std::string_view name, std::string_view data, std::string& out) {
  out.append("event: ").append(name).append("\ndata: ").append(data).append("\n\n");
}

HttpResponse event_stream(std::shared_ptr<HttpBodyStream> stream) {
  return {.content_type = "text/event-stream; charset=utf-8",
          .headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}},
          .stream = std::move(stream)};
}

}  // namespace nanochat
