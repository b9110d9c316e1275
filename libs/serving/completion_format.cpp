#include "serving/internal/completion_format.h"

namespace nanochat {

using Json = nlohmann::ordered_json;

Json CompletionFormat::logprobs_json(const ChoicePart& part) const {
  if (!logprobs()) return nullptr;
  const bool top = top_logprobs() > 0;
  Json names = Json::array(), values = Json::array(), tops = Json::array(), offsets = Json::array();
  for (const AnswerToken& one : part.tokens) {
    names.push_back(token_text(tokenizer(), one.token.id));
    offsets.push_back(one.offset);
    if (part.begins_with_prompt && &one == &part.tokens.front()) {
      values.push_back(nullptr);
      tops.push_back(nullptr);
      continue;
    }
    values.push_back(json_logprob(one.token.logprob));
    if (!top) continue;
    Json best = Json::object();
    for (const SampledToken& other : one.top) best[token_text(tokenizer(), other.id)] = json_logprob(other.logprob);
    best[names.back().get_ref<const std::string&>()] = json_logprob(one.token.logprob);
    tops.push_back(std::move(best));
  }
  Json object;
  object["tokens"] = std::move(names);
  object["token_logprobs"] = std::move(values);
  object["top_logprobs"] = top ? std::move(tops) : Json();
  object["text_offset"] = std::move(offsets);
  return object;
}

Json CompletionFormat::whole_choice(const ChoicePart& part) const {
  return choice_json(part.index, "text", part.text, logprobs_json(part), part.end);
}

void CompletionFormat::delta(const ChoicePart& part, const EngineUsage& usage, std::string& out) {
  write_chunk(logprobs() ? dump(choice_json(part.index, "text", part.text, logprobs_json(part), {}))
                         : plain_choice(part.index, "text", dump(part.text)),
              usage, out);
}

void CompletionFormat::finish(const ChoicePart& part, const EngineUsage& usage, std::string& out) {
  write_chunk(dump(choice_json(part.index, "text", "", nullptr, part.end)), usage, out);
}

}  // namespace nanochat
