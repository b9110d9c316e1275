#pragma once
// The text of one answer as its tokens come: decoded to whole characters, special tokens left out, cut before a stop string.
// Text that could still become a stop string waits, so that none of one is ever handed out, wherever the borders of tokens lie.

#include <cstdint>
#include <string>
#include <vector>

#include "inference/sampler.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {

// One token of an answer with its probability, for "logprobs".
struct AnswerToken {
  SampledToken token;
  std::vector<SampledToken> top;
  std::size_t offset = 0;  // bytes of the answer before it
};

// Not thread-safe. The tokenizer must outlive it.
class AnswerText {
 public:
  // hide_tool_calls: what stands from <|python_start|> to <|output_end|> is no part of the text (a chat), or is (a completion).
  AnswerText(const Tokenizer& tokenizer, std::vector<std::string> stops, bool hide_tool_calls);

  // False when the text now holds a stop string: it ends before that, and nothing may follow.
  bool push(const SampledToken& token, std::vector<SampledToken> top = {});
  // No token follows: what waited is text.
  void finish();

  // What is new since the last call.
  std::string take_text();
  std::vector<AnswerToken> take_tokens();

 private:
  void add(const std::string& text);
  bool is_hidden(TokenId id);

  const Tokenizer& tokenizer_;
  StreamDecoder decoder_;
  std::vector<std::string> stops_;
  std::vector<TokenId> call_begins_, call_ends_;
  bool hide_ = false;
  bool in_call_ = false;
  bool ended_ = false;
  std::string waiting_;            // may be the beginning of a stop string
  std::string ready_;              // handed out by the next take_text()
  std::size_t decoded_ = 0;        // bytes of the answer so far, waiting ones included
  std::size_t settled_ = 0;        // bytes that are certainly part of the answer
  std::vector<AnswerToken> tokens_;
};

}  // namespace nanochat
