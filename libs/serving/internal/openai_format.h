#pragma once
// What OpenAI's chat completions and completions have in common: the object around the choices, usage, the chunks of a stream
// and its end, "data: [DONE]". ChatFormat and CompletionFormat write the choices.

#include <memory>

#include <nlohmann/json.hpp>

#include "serving/internal/answer_format.h"
#include "serving/internal/api_request.h"

namespace nanochat {

// The fields at the beginning of an answer and of each of its chunks.
struct AnswerHead {
  std::string id;  // "chatcmpl-..."
  std::string model, fingerprint;
  std::int64_t created = 0;  // seconds since 1970
};

class OpenAiFormat : public AnswerFormat {
 public:
  std::string whole(std::span<const ChoicePart> choices, const EngineUsage& usage) final;
  void end(const EngineUsage& usage, std::string& out) final;
  void fail(const ApiError& error, std::string& out) final;
  HttpResponse failure(const ApiError& error) const final;

 protected:
  using Json = nlohmann::ordered_json;

  // The field "object" is `whole_object` in a whole answer and `chunk_object` in a chunk. `fields` says whether logprobs and
  // usage are wanted.
  OpenAiFormat(AnswerHead head, const GenerationFields& fields, std::shared_ptr<const Tokenizer> tokenizer,
               const char* whole_object, const char* chunk_object);

  virtual Json whole_choice(const ChoicePart& part) const = 0;

  // Appends a chunk with one choice. `choice` is JSON text.
  void write_chunk(std::string_view choice, const EngineUsage& usage, std::string& out);

  const Tokenizer& tokenizer() const { return *tokenizer_; }
  bool logprobs() const { return logprobs_; }
  std::int64_t top_logprobs() const { return top_logprobs_; }

 private:
  Json answer(const char* object, Json choices) const;
  void append_chunk(std::string_view choice, std::string_view usage, std::string& out);

  const AnswerHead head_;
  const std::shared_ptr<const Tokenizer> tokenizer_;
  const char* const whole_object_;
  const char* const chunk_object_;
  const bool logprobs_, include_usage_, continuous_usage_;
  const std::int64_t top_logprobs_;
  std::string chunk_head_;  // the text of each chunk before its choice
};

// {"index", NAME: content, "logprobs", "finish_reason"}. finish_reason is null if `end` is nullopt.
nlohmann::ordered_json choice_json(std::int64_t index, const char* name, nlohmann::ordered_json content,
                                   nlohmann::ordered_json logprobs, const std::optional<ChoiceEnd>& end);
// The same as JSON text, for a delta without logprobs, which is most of what a server writes. `content` is JSON text.
std::string plain_choice(std::int64_t index, const char* name, std::string_view content);

nlohmann::ordered_json usage_json(const EngineUsage& usage);
// The end of a stream with an error.
std::string openai_error_event(const ApiError& error);

// The text of one token: its characters, the name of a special token, or "bytes:\xe2\x82" if it is not valid UTF-8.
std::string token_text(const Tokenizer& tokenizer, TokenId id);
// JSON has no -Inf, the log probability of a token that is never drawn. This returns -9999 instead, as OpenAI's API does.
double json_logprob(double logprob);

// A list of {"token", "logprob", "bytes", "top_logprobs"}, with `top` alternatives each.
nlohmann::ordered_json logprobs_json(const Tokenizer& tokenizer, const std::vector<AnswerToken>& tokens, std::int64_t top);

}  // namespace nanochat
