#pragma once
// AnswerText decodes the tokens of one answer, one after the other. The text has only complete UTF-8 characters, has no special
// tokens, and ends before a stop string. Text that may be the beginning of a stop string is held back until the next tokens
// decide it, so no part of a stop string is ever returned.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "inference/sampler.h"
#include "tokenizer/chat_history.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {

// A token of an answer with its log probability, for "logprobs".
struct AnswerToken {
  SampledToken token;
  std::vector<SampledToken> top;
  std::size_t offset = 0;  // where its text begins, in bytes of the answer
};

// A calculation of the model's calculator within an answer.
struct AnswerCalculation : Calculation {
  std::int64_t index = 0;  // number of calculations of the answer before this one
};

// Not thread-safe. The tokenizer must outlive it.
class AnswerText {
 public:
  // hide_tool_calls: leave the text from <|python_start|> to <|output_end|> out of text and tokens. Chats set it, completions
  // do not.
  AnswerText(const Tokenizer& tokenizer, std::vector<std::string> stops, bool hide_tool_calls);

  // Returns false if the text now contains a stop string: the answer has ended and ignores further tokens. `forced`: a tool
  // inserted the token.
  bool push(const SampledToken& token, std::vector<SampledToken> top = {}, bool forced = false);
  // Call after the last token: text that was held back becomes part of the answer.
  void finish();
  // The stop string that ended the text; empty if there was none.
  const std::string& stop_string() const { return stop_string_; }

  // Each of these returns what is new since its last call.
  std::string take_text();
  std::vector<AnswerToken> take_tokens();
  std::vector<AnswerCalculation> take_calculations();  // only those whose result a tool inserted

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
  std::string waiting_;  // held back: may be the beginning of a stop string
  std::string ready_;  // returned by the next take_text()
  std::size_t decoded_ = 0;  // bytes of the answer so far, with waiting_
  std::size_t settled_ = 0;  // bytes that are part of the answer whatever follows
  std::int64_t characters_ = 0;  // the same in characters
  std::vector<AnswerToken> tokens_;
  std::string expression_, result_;  // of the calculation that is under way, as bytes
  std::int64_t calculated_ = 0;
  struct Placed {
    AnswerCalculation calculation;
    std::size_t offset;  // in bytes
  };
  std::vector<Placed> calculations_;
};

}  // namespace nanochat
