#pragma once
// Writes the answers of POST /v1/messages, as in Anthropic's API: a message of content blocks, each with text or a call of a tool.
// Events of a stream have names:
//
//   message_start
//   for each block: content_block_start, content_block_delta ..., content_block_stop
//   message_delta, message_stop
//
// An answer without text has no content block. Results of the calculator are not listed.

#include "serving/internal/answer_format.h"

namespace nanochat {

class AnthropicFormat final : public AnswerFormat {
 public:
  // `max_tokens` is that of the request. An answer that ends before it because of its length has filled the context.
  AnthropicFormat(std::string id, std::string model, std::int64_t max_tokens);

  std::string whole(std::span<const ChoicePart> choices, const EngineUsage& usage) override;
  void begin(const ChoicePart& part, const EngineUsage& usage, std::string& out) override;
  void delta(const ChoicePart& part, const EngineUsage& usage, std::string& out) override;
  void finish(const ChoicePart& part, const EngineUsage& usage, std::string& out) override;
  void end(const EngineUsage& usage, std::string& out) override;
  void fail(const ApiError& error, std::string& out) override;
  HttpResponse failure(const ApiError& error) const override;

 private:
  using Json = nlohmann::ordered_json;
  Json message(Json content, const EngineUsage& usage) const;
  Json stop_reason(const EngineUsage& usage) const;  // of `last_`
  enum class Block { kNone, kText, kCall };
  void start_block(Block kind, Json block, std::string& out);
  void stop_block(std::string& out);
  void write_delta(std::string_view type, const char* member, std::string_view text, std::string& out);

  const std::string id_, model_;
  const std::int64_t max_tokens_;
  Block block_ = Block::kNone;  // under way
  std::int64_t blocks_ = 0;  // that have ended
  ChoicePart last_;  // the end of the answer, without its content
};

// {"type": "error", "error": {"type", "message"}}. The message names the field, which has no member of its own here.
std::string anthropic_error_json(const ApiError& error);
HttpResponse anthropic_failure(const ApiError& error);
std::string anthropic_error_event(const ApiError& error);

}  // namespace nanochat
