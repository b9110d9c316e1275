#pragma once
// The calculator as a part of generation: between <|python_start|> and <|python_end|> a model writes an expression; then
// <|output_start|> result <|output_end|> are the next tokens of the sequence, whatever the model would draw. An expression
// without a result forces nothing, and the model goes on by itself. As the row states of the reference's engine.py.
//
// For every sequence one ToolUse, which sees every token in order and is asked before each:
//
//   ToolUse tools(tokenizer);
//   TokenId next = tools.forced() ? *tools.forced() : sampler.sample(...);
//   tools.see(next);
//
// Cheap to copy and to move. Not thread-safe; the tokenizer must outlive it.

#include <deque>
#include <optional>
#include <string>

#include "tokenizer/tokenizer.h"

namespace nanochat {

class ToolUse {
 public:
  // A tokenizer without the four special tokens forces nothing.
  explicit ToolUse(const Tokenizer& tokenizer);

  // The token that has to come next; nullopt when the model may draw.
  std::optional<TokenId> forced() const { return pending_.empty() ? std::nullopt : std::optional(pending_.front()); }
  // `id` came next. Takes it off what is forced when it is that.
  void see(TokenId id);

 private:
  void run();

  const Tokenizer* tokenizer_;
  TokenId python_start_ = -1, python_end_ = -1, output_start_ = -1, output_end_ = -1;
  bool in_block_ = false;
  std::string expression_;        // of the block so far; no more than the calculator reads
  std::deque<TokenId> pending_;   // to be forced
};

}  // namespace nanochat
