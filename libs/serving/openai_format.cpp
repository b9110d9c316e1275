#include "serving/internal/openai_format.h"

#include <algorithm>
#include <cmath>

#include <spdlog/fmt/fmt.h>

#include "core/format.h"

namespace nanochat {

using Json = nlohmann::ordered_json;

OpenAiFormat::OpenAiFormat(AnswerHead head, const GenerationFields& fields, std::shared_ptr<const Tokenizer> tokenizer,
                           const char* whole_object, const char* chunk_object)
    : head_(std::move(head)), tokenizer_(std::move(tokenizer)), whole_object_(whole_object), chunk_object_(chunk_object),
      logprobs_(fields.logprobs), include_usage_(fields.include_usage), continuous_usage_(fields.continuous_usage),
      top_logprobs_(fields.top_logprobs) {}

Json OpenAiFormat::answer(const char* object, Json choices) const {
  Json fields;
  fields["id"] = head_.id;
  fields["object"] = object;
  fields["created"] = head_.created;
  fields["model"] = head_.model;
  fields["system_fingerprint"] = head_.fingerprint;
  fields["choices"] = std::move(choices);
  return fields;
}

std::string OpenAiFormat::whole(std::span<const ChoicePart> choices, const EngineUsage& usage) {
  Json list = Json::array();
  for (const ChoicePart& choice : choices) list.push_back(whole_choice(choice));
  Json object = answer(whole_object_, std::move(list));
  object["usage"] = usage_json(usage);
  return dump(object);
}

void OpenAiFormat::append_chunk(std::string_view choice, std::string_view usage, std::string& out) {
  if (chunk_head_.empty()) {
    chunk_head_ = "data: " + dump(answer(chunk_object_, Json::array()));
    chunk_head_.resize(chunk_head_.size() - 2);  // without the end of the list of choices, "]}"
  }
  out.append(chunk_head_).append(choice).append("]");
  if (!usage.empty()) out.append(",\"usage\":").append(usage);
  out.append("}\n\n");
}

void OpenAiFormat::write_chunk(std::string_view choice, const EngineUsage& usage, std::string& out) {
  append_chunk(choice, continuous_usage_ ? dump(usage_json(usage)) : include_usage_ ? "null" : "", out);
}

void OpenAiFormat::end(const EngineUsage& usage, std::string& out) {
  if (include_usage_) append_chunk({}, dump(usage_json(usage)), out);
  out += "data: [DONE]\n\n";
}

void OpenAiFormat::fail(const ApiError& error, std::string& out) { out += openai_error_event(error); }

HttpResponse OpenAiFormat::failure(const ApiError& error) const { return error.response(); }

std::string openai_error_event(const ApiError& error) { return "data: " + error.json() + "\n\ndata: [DONE]\n\n"; }

Json choice_json(std::int64_t index, const char* name, Json content, Json logprobs, const std::optional<ChoiceEnd>& end) {
  Json choice;
  choice["index"] = index;
  choice[name] = std::move(content);
  choice["logprobs"] = std::move(logprobs);
  choice["finish_reason"] = end ? Json(name_of(*end)) : Json();
  return choice;
}

std::string plain_choice(std::int64_t index, const char* name, std::string_view content) {
  return fmt::format(R"({{"index":{},"{}":{},"logprobs":null,"finish_reason":null}})", index, name, content);
}

Json usage_json(const EngineUsage& usage) {
  Json object;
  object["prompt_tokens"] = usage.prompt_tokens;
  object["completion_tokens"] = usage.completion_tokens;
  object["total_tokens"] = usage.prompt_tokens + usage.completion_tokens;
  object["prompt_tokens_details"] = {{"cached_tokens", usage.cached_tokens}};
  return object;
}

std::string token_text(const Tokenizer& tokenizer, TokenId id) {
  if (id < 0 || id >= tokenizer.vocab_size()) return fmt::format("<|unused_{}|>", id);
  const std::string_view bytes = tokenizer.token_bytes(id);
  if (is_valid_utf8(bytes)) return std::string(bytes);
  std::string text = "bytes:";
  for (const char c : bytes) text += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  return text;
}

double json_logprob(double logprob) { return std::isfinite(logprob) ? logprob : -9999.0; }

namespace {

Json token_json(const Tokenizer& tokenizer, const SampledToken& token) {
  Json object;
  object["token"] = token_text(tokenizer, token.id);
  object["logprob"] = json_logprob(token.logprob);
  Json bytes = Json::array();
  if (token.id < tokenizer.vocab_size()) {
    for (const char c : tokenizer.token_bytes(token.id)) bytes.push_back(static_cast<unsigned char>(c));
  }
  object["bytes"] = std::move(bytes);
  return object;
}

}  // namespace

Json logprobs_json(const Tokenizer& tokenizer, const std::vector<AnswerToken>& tokens, std::int64_t top) {
  Json list = Json::array();
  for (const AnswerToken& one : tokens) {
    Json entry = token_json(tokenizer, one.token);
    Json alternatives = Json::array();
    for (std::size_t i = 0; i < std::min(static_cast<std::size_t>(top), one.top.size()); ++i) {
      alternatives.push_back(token_json(tokenizer, one.top[i]));
    }
    entry["top_logprobs"] = std::move(alternatives);
    list.push_back(std::move(entry));
  }
  return list;
}

}  // namespace nanochat
