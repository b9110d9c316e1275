#pragma once
// Writes the answers of POST /v1/chat/completions: messages and their deltas, calls of functions (tool_calls), logprobs as a
// list of objects, and the results of the calculator (nanochat_calculations).

#include "serving/internal/openai_format.h"

namespace nanochat {

class ChatFormat final : public OpenAiFormat {
 public:
  ChatFormat(AnswerHead head, const GenerationFields& fields, std::shared_ptr<const Tokenizer> tokenizer)
      : OpenAiFormat(std::move(head), fields, std::move(tokenizer), "chat.completion", "chat.completion.chunk") {}

  void begin(const ChoicePart& part, const EngineUsage& usage, std::string& out) override;
  void delta(const ChoicePart& part, const EngineUsage& usage, std::string& out) override;
  void finish(const ChoicePart& part, const EngineUsage& usage, std::string& out) override;

 private:
  Json whole_choice(const ChoicePart& part) const override;
  Json logprobs_json(const std::vector<AnswerToken>& tokens) const;  // null if the request does not ask for them
};

}  // namespace nanochat
