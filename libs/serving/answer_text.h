#pragma once
// The text of one answer as its tokens come: decoded to whole characters, special tokens left out, cut before a stop string.
// Text that could still become a stop string waits, so that none of one is ever handed out, wherever the borders of tokens lie.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "inference/sampler.h"
#include "tokenizer/chat_history.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {

// One token of an answer with its probability, for "logprobs".
struct AnswerToken {
  SampledToken token;
  std::vector<SampledToken> top;
  std::size_t offset = 0;  // bytes of the answer before it
};

// What the calculator computed within an answer.
struct AnswerCalculation : Calculation {
  std::int64_t index = 0;  // among those of the answer
};

// Not thread-safe. The tokenizer must outlive it.
class AnswerText {
 public:
  // hide_tool_calls: what stands from <|python_start|> to <|output_end|> is no part of the text and of its tokens (a chat), or is
  // (a completion).
  AnswerText(const Tokenizer& tokenizer, std::vector<std::string> stops, bool hide_tool_calls);

  // False when the text now holds a stop string: it ends before that, and nothing may follow. `forced`: put in by a tool.
  bool push(const SampledToken& token, std::vector<SampledToken> top = {}, bool forced = false);
  // No token follows: what waited is text.
  void finish();
  // The stop string that the text ended before; empty: it found none.
  const std::string& stop_string() const { return stop_string_; }

  // What is new since the last call.
  std::string take_text();
  std::vector<AnswerToken> take_tokens();
  std::vector<AnswerCalculation> take_calculations();  // those with a forced result

 private:
  enum class Place { kText, kCall, kResult };
  void add(const std::string& text);
  void see_special(TokenId id, bool forced);

  const Tokenizer& tokenizer_;
  StreamDecoder decoder_;
  std::vector<std::string> stops_;
  std::optional<TokenId> python_start_, python_end_, output_start_, output_end_;
  bool hide_ = false;
  Place place_ = Place::kText;
  bool result_is_forced_ = false;
  bool ended_ = false;
  std::string stop_string_;
  std::string waiting_;  // may be the beginning of a stop string
  std::string ready_;  // handed out by the next take_text()
  std::size_t decoded_ = 0;  // bytes of the answer so far, waiting ones included
  std::size_t settled_ = 0;  // bytes that are certainly part of the answer
  std::int64_t characters_ = 0;  // of decoded_
  std::vector<AnswerToken> tokens_;
  std::string expression_, result_;  // of the last call, as bytes
  std::int64_t calculated_ = 0;
  struct Placed {
    AnswerCalculation calculation;
    std::size_t offset;  // in bytes
  };
  std::vector<Placed> calculations_;
};

}  // namespace nanochat
