#pragma once
// Writes the answers of POST /v1/completions: text, and logprobs as parallel lists. With "echo", both begin with the prompt.

#include "serving/internal/openai_format.h"

namespace nanochat {

class CompletionFormat final : public OpenAiFormat {
 public:
  CompletionFormat(AnswerHead head, const GenerationFields& fields, std::shared_ptr<const Tokenizer> tokenizer)
      : OpenAiFormat(std::move(head), fields, std::move(tokenizer), "text_completion", "text_completion") {}

  void begin(const ChoicePart&, const EngineUsage&, std::string&) override {}
  void delta(const ChoicePart& part, const EngineUsage& usage, std::string& out) override;
  void finish(const ChoicePart& part, const EngineUsage& usage, std::string& out) override;

 private:
  Json whole_choice(const ChoicePart& part) const override;
  Json logprobs_json(const ChoicePart& part) const;  // null if the request does not ask for them
};

}  // namespace nanochat
