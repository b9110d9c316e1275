#include "serving/internal/answer_text.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "core/format.h"
#include "core/utf8.h"
#include "tokenizer/special_tokens.h"

namespace nanochat {
namespace {

// The number of bytes at the end of `text` that are the beginning of a stop string.
std::size_t begun_stop(std::string_view text, const std::vector<std::string>& stops) {
  std::size_t longest = 0;
  for (const std::string& stop : stops) {
    for (std::size_t length = std::min(stop.size() - 1, text.size()); length > longest; --length) {
      if (text.ends_with(std::string_view(stop).substr(0, length))) longest = length;
    }
  }
  return longest;
}

struct FoundStop {
  std::size_t position = std::string_view::npos;
  std::string_view stop = {};
};

// The stop string that occurs first in the text. If several begin at one place, the first one of the list.
FoundStop find_stop(std::string_view text, const std::vector<std::string>& stops) {
  FoundStop first;
  for (const std::string& stop : stops) {
    if (const std::size_t position = text.find(stop); position < first.position) first = {position, stop};
  }
  return first;
}

}  // namespace

AnswerText::AnswerText(const Tokenizer& tokenizer, std::vector<std::string> stops, bool hide_tool_calls)
    : tokenizer_(tokenizer), decoder_(tokenizer), stops_(std::move(stops)), python_start_(tokenizer.special_id(kPythonStart)),
      python_end_(tokenizer.special_id(kPythonEnd)), output_start_(tokenizer.special_id(kOutputStart)),
      output_end_(tokenizer.special_id(kOutputEnd)), hide_(hide_tool_calls) {}

void AnswerText::see_special(TokenId id, bool forced) {
  if (id == python_start_) {
    place_ = Place::kCall;
    expression_.clear();
  } else if (id == output_start_) {
    place_ = Place::kResult;
    result_.clear();
    result_is_forced_ = forced;
  } else if (id == python_end_ || id == output_end_) {
    if (place_ == Place::kResult && std::exchange(result_is_forced_, false)) {
      calculations_.push_back({{{replace_invalid_utf8(expression_), replace_invalid_utf8(result_), characters_}, calculated_++},
                               decoded_});
    }
    place_ = Place::kText;
  }
}

bool AnswerText::push(const SampledToken& token, std::vector<SampledToken> top, bool forced) {
  if (ended_) return false;
  // The vocabulary of the model is padded. Ids beyond the vocabulary of the tokenizer have no text.
  const bool known = token.id < tokenizer_.vocab_size(), special = known && tokenizer_.is_special(token.id);
  const bool was_text = place_ == Place::kText;
  if (special) see_special(token.id, forced);
  if (!hide_ || (was_text && place_ == Place::kText)) tokens_.push_back({token, std::move(top), decoded_});
  if (!known || special) return true;
  if (place_ == Place::kCall) expression_ += tokenizer_.token_bytes(token.id);
  if (place_ == Place::kResult) result_ += tokenizer_.token_bytes(token.id);
  if (!hide_ || place_ == Place::kText) add(decoder_.push(token.id));
  return !ended_;
}

void AnswerText::add(const std::string& text) {
  decoded_ += text.size();
  characters_ += utf8::count_characters(text);
  waiting_ += text;
  if (const FoundStop found = find_stop(waiting_, stops_); !found.stop.empty()) {
    ready_ += waiting_.substr(0, found.position);
    settled_ += found.position;
    stop_string_ = found.stop;
    waiting_.clear();
    ended_ = true;
    std::erase_if(tokens_, [&](const AnswerToken& one) { return one.offset >= settled_; });
    std::erase_if(calculations_, [&](const Placed& one) { return one.offset > settled_; });
    return;
  }
  const std::size_t safe = waiting_.size() - begun_stop(waiting_, stops_);
  ready_ += waiting_.substr(0, safe);
  settled_ += safe;
  waiting_.erase(0, safe);
}

void AnswerText::finish() {
  if (ended_) return;
  add(decoder_.flush());
  if (ended_) return;
  ended_ = true;
  ready_ += std::exchange(waiting_, {});
  settled_ = SIZE_MAX;
}

std::string AnswerText::take_text() { return std::exchange(ready_, {}); }

std::vector<AnswerToken> AnswerText::take_tokens() {
  // With stop strings, tokens are held back together with their text.
  const auto first_waiting = stops_.empty() ? tokens_.end()
                                            : std::find_if(tokens_.begin(), tokens_.end(),
                                                           [&](const AnswerToken& one) { return one.offset >= settled_; });
  std::vector<AnswerToken> taken(std::make_move_iterator(tokens_.begin()), std::make_move_iterator(first_waiting));
  tokens_.erase(tokens_.begin(), first_waiting);
  return taken;
}

std::vector<AnswerCalculation> AnswerText::take_calculations() {
  std::vector<AnswerCalculation> taken;
  const auto waiting = std::find_if(calculations_.begin(), calculations_.end(),
                                    [&](const Placed& one) { return one.offset > settled_; });
  for (auto one = calculations_.begin(); one != waiting; ++one) taken.push_back(std::move(one->calculation));
  calculations_.erase(calculations_.begin(), waiting);
  return taken;
}

}  // namespace nanochat
