#pragma once
// What the answers of OpenAI's chat completions and completions have in common: the object around the choices, usage, the chunks
// of a stream, and its end, "data: [DONE]". The choices themselves are written by ChatFormat and CompletionFormat.

#include <memory>

#include <nlohmann/json.hpp>

#include "serving/answer_format.h"
#include "serving/api_request.h"

namespace nanochat {

// The fields that begin an answer and each chunk of it.
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

  // "object" says `whole_object` in a whole answer and `chunk_object` in a chunk. Of `fields`, logprobs and usage are read.
  OpenAiFormat(AnswerHead head, const GenerationFields& fields, std::shared_ptr<const Tokenizer> tokenizer,
               const char* whole_object, const char* chunk_object);

  virtual Json whole_choice(const ChoicePart& part) const = 0;

  // Appends a chunk with one choice, given as JSON.
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
  std::string chunk_head_;  // of every chunk, up to its choice
};

// {"index", NAME: content, "logprobs", "finish_reason"}, with null for an `end` that has not come.
nlohmann::ordered_json choice_json(std::int64_t index, const char* name, nlohmann::ordered_json content,
                                   nlohmann::ordered_json logprobs, const std::optional<ChoiceEnd>& end);
// The same, as a string, for text in the midst of a stream without logprobs: most of what a server writes. `content` is JSON.
std::string plain_choice(std::int64_t index, const char* name, std::string_view content);

nlohmann::ordered_json usage_json(const EngineUsage& usage);

// The text of a token alone: itself, a special token's name, or "bytes:\xe2\x82" for what is no whole character.
std::string token_text(const Tokenizer& tokenizer, TokenId id);
// -Inf, a token that is never drawn, has no form in JSON; OpenAI's API says -9999.
double json_logprob(double logprob);

// One line of JSON. Bytes that are not UTF-8 become U+FFFD.
std::string dump(const nlohmann::ordered_json& value);

}  // namespace nanochat
