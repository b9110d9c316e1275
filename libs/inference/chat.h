#pragma once
// Conversion between a model's tokens and the messages of a conversation,
// for the command-line chat and for servers. Pure functions.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tokenizer/conversation.h"

namespace nanochat {

struct ChatPrompt {
  std::vector<TokenId> ids;   // ends with <|assistant_start|>
  std::size_t dropped = 0;    // number of messages left out
};

// The prompt of a conversation that ends with the user's message, in at most `max_tokens` tokens. The
// oldest exchanges (a user message and its answer) are left out until the rest fits; a system message is
// kept. Throws DataError as render_prompt, and with both lengths if the last message alone does not fit.
ChatPrompt fit_prompt(const Tokenizer& tokenizer, const Conversation& conversation, std::int64_t max_tokens);

// Tokens that end a generated text: those of <|bos|>, <|endoftext|> and <|assistant_end|>
// that the tokenizer has, and the token that begins a document if it has another name.
std::vector<TokenId> end_tokens(const Tokenizer& tokenizer);

// The parts of an answer: text, calls of the calculator, and their results. An incomplete part is
// kept; special tokens that do not belong into an answer are left out. Invalid UTF-8 is replaced.
std::vector<MessagePart> answer_parts(const Tokenizer& tokenizer, std::span<const TokenId> ids);

// Text of an answer for display while it is generated: text unchanged, a call and its
// result as "<<6*7=42>>", never ending inside a character. Use one object per answer.
class AnswerView {
 public:
  explicit AnswerView(const Tokenizer& tokenizer) : tokenizer_(tokenizer), decoder_(tokenizer) {}
  std::string push(TokenId id);
  std::string flush();

 private:
  const Tokenizer& tokenizer_;
  StreamDecoder decoder_;
  bool call_open_ = false, call_ended_ = false;
};

}  // namespace nanochat
