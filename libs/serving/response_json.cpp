#include "serving/response_json.h"

#include <algorithm>
#include <cmath>
#include <random>

#include <spdlog/fmt/fmt.h>

#include "core/format.h"

namespace nanochat {
namespace {

using Json = nlohmann::ordered_json;

// -Inf, a token that is never drawn, has no form in JSON; OpenAI's API says -9999.
double json_logprob(double logprob) { return std::isfinite(logprob) ? logprob : -9999.0; }

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

// With id and name where the name is: in the part that begins the call.
Json call_json(const ChoicePart& part) {
  Json call = Json::object(), function = Json::object();
  if (!part.call->name.empty()) {
    call["id"] = part.call_id;
    call["type"] = "function";
    function["name"] = part.call->name;
  }
  function["arguments"] = part.call->arguments;
  call["function"] = std::move(function);
  return call;
}

// With `indexed`, as entries of a list that comes in pieces have it.
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

std::string new_id(std::string_view prefix) {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return fmt::format("{}{:016x}{:08x}", prefix, random(), random() & 0xffffffffu);
}

std::string token_text(const Tokenizer& tokenizer, TokenId id) {
  if (id < 0 || id >= tokenizer.vocab_size()) return fmt::format("<|unused_{}|>", id);
  const std::string_view bytes = tokenizer.token_bytes(id);
  if (is_valid_utf8(bytes)) return std::string(bytes);
  std::string text = "bytes:";
  for (const char c : bytes) text += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  return text;
}

Json usage_json(const EngineUsage& usage) {
  Json object;
  object["prompt_tokens"] = usage.prompt_tokens;
  object["completion_tokens"] = usage.completion_tokens;
  object["total_tokens"] = usage.prompt_tokens + usage.completion_tokens;
  object["prompt_tokens_details"] = {{"cached_tokens", usage.cached_tokens}};
  return object;
}

Json answer_json(const AnswerHead& head, bool chunk, Json choices) {
  Json object;
  object["id"] = head.id;
  object["object"] = head.chat ? (chunk ? "chat.completion.chunk" : "chat.completion") : "text_completion";
  object["created"] = head.created;
  object["model"] = head.model;
  object["system_fingerprint"] = head.fingerprint;
  object["choices"] = std::move(choices);
  return object;
}

Json whole_choice(const AnswerHead& head, const ChoicePart& part, const Json& logprobs) {
  Json choice;
  choice["index"] = part.index;
  if (head.chat) {
    Json message = {{"role", "assistant"}, {"content", part.call ? Json() : Json(part.text)}, {"refusal", nullptr}};
    if (part.call) message["tool_calls"] = Json::array({call_json(part)});
    if (!part.calculations.empty()) message["nanochat_calculations"] = calculations_json(part.calculations, false);
    choice["message"] = std::move(message);
  } else {
    choice["text"] = part.text;
  }
  choice["logprobs"] = logprobs;
  choice["finish_reason"] = part.finish_reason;
  return choice;
}

Json chunk_choice(const AnswerHead& head, const ChoicePart& part, const Json& logprobs) {
  Json choice;
  choice["index"] = part.index;
  if (head.chat) {
    Json delta = Json::object();
    if (part.begins) delta["role"] = "assistant";
    if (part.begins || !part.text.empty()) delta["content"] = part.call ? Json() : Json(part.text);
    if (part.call && !part.call->empty()) {
      Json call = {{"index", 0}};
      call.update(call_json(part));
      delta["tool_calls"] = Json::array({std::move(call)});
    }
    if (!part.calculations.empty()) delta["nanochat_calculations"] = calculations_json(part.calculations, true);
    choice["delta"] = std::move(delta);
  } else {
    choice["text"] = part.text;
  }
  choice["logprobs"] = logprobs;
  choice["finish_reason"] = part.finish_reason.empty() ? Json() : Json(part.finish_reason);
  return choice;
}

std::string text_chunk_choice(const AnswerHead& head, std::int64_t index, std::string_view text) {
  const std::string quoted = Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
  const std::string text_field = head.chat ? R"("delta":{"content":)" + quoted + "}" : R"("text":)" + quoted;
  return fmt::format(R"({{"index":{},{},"logprobs":null,"finish_reason":null}})", index, text_field);
}

Json chat_logprobs(const Tokenizer& tokenizer, const std::vector<AnswerToken>& tokens, std::int64_t top) {
  Json content = Json::array();
  for (const AnswerToken& one : tokens) {
    Json entry = token_json(tokenizer, one.token);
    Json alternatives = Json::array();
    for (std::int64_t i = 0; i < std::min<std::int64_t>(top, static_cast<std::int64_t>(one.top.size())); ++i) {
      alternatives.push_back(token_json(tokenizer, one.top[static_cast<std::size_t>(i)]));
    }
    entry["top_logprobs"] = std::move(alternatives);
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

Json completion_logprobs(const Tokenizer& tokenizer, const std::vector<AnswerToken>& tokens, std::int64_t top,
                         bool first_is_prompt, std::size_t text_offset) {
  Json names = Json::array(), logprobs = Json::array(), tops = Json::array(), offsets = Json::array();
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const AnswerToken& one = tokens[i];
    names.push_back(token_text(tokenizer, one.token.id));
    offsets.push_back(text_offset + one.offset);
    if (first_is_prompt && i == 0) {
      logprobs.push_back(nullptr);
      tops.push_back(nullptr);
      continue;
    }
    logprobs.push_back(json_logprob(one.token.logprob));
    Json best = Json::object();
    for (const SampledToken& other : one.top) best[token_text(tokenizer, other.id)] = json_logprob(other.logprob);
    best[token_text(tokenizer, one.token.id)] = json_logprob(one.token.logprob);
    tops.push_back(top > 0 ? std::move(best) : Json());
  }
  Json object;
  object["tokens"] = std::move(names);
  object["token_logprobs"] = std::move(logprobs);
  object["top_logprobs"] = top > 0 ? std::move(tops) : Json();
  object["text_offset"] = std::move(offsets);
  return object;
}

}  // namespace nanochat
