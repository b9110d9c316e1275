#pragma once
// What holds a conversation together between a model's tokens and its messages: for the chat of the command line, and for
// servers. Pure functions.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tokenizer/conversation.h"

namespace nanochat {

struct ChatPrompt {
  std::vector<TokenId> ids;   // ends with <|assistant_start|>
  std::size_t dropped = 0;    // messages left out
};

// The prompt of a conversation that ends with the user's message, in at most `max_tokens` tokens: the oldest exchanges (the
// user's message and its answer) are left out until the rest fits; a system message stays. Throws DataError as
// render_prompt, and with both lengths when the last message alone does not fit.
ChatPrompt fit_prompt(const Tokenizer& tokenizer, const Conversation& conversation, std::int64_t max_tokens);

// Tokens that end what a model writes: those of the tokenizer among <|bos|>, <|endoftext|> and <|assistant_end|>, and the
// token that begins a document where that has another name.
std::vector<TokenId> end_tokens(const Tokenizer& tokenizer);

// The parts of an answer: text, calls of the calculator, what these gave. A part that was cut off is kept; special tokens
// that have no place in an answer are left out. Invalid UTF-8 is replaced.
std::vector<MessagePart> answer_parts(const Tokenizer& tokenizer, std::span<const TokenId> ids);

// What an answer is shown as while it comes: text as it is, a call and its result as "<<6*7=42>>", without ever ending
// inside a character. One for each answer.
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
