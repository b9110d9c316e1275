#include "serving/answer_text.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "tokenizer/special_tokens.h"

namespace nanochat {
namespace {

// Bytes at the end of `text` that a stop string begins with.
std::size_t begun_stop(std::string_view text, const std::vector<std::string>& stops) {
  std::size_t longest = 0;
  for (const std::string& stop : stops) {
    for (std::size_t length = std::min(stop.size() - 1, text.size()); length > longest; --length) {
      if (text.ends_with(std::string_view(stop).substr(0, length))) longest = length;
    }
  }
  return longest;
}

std::size_t find_stop(std::string_view text, const std::vector<std::string>& stops) {
  std::size_t first = std::string_view::npos;
  for (const std::string& stop : stops) first = std::min(first, text.find(stop));
  return first;
}

}  // namespace

AnswerText::AnswerText(const Tokenizer& tokenizer, std::vector<std::string> stops, bool hide_tool_calls)
    : tokenizer_(tokenizer), decoder_(tokenizer), stops_(std::move(stops)), hide_(hide_tool_calls) {
  const auto note = [&](std::string_view name, std::vector<TokenId>& ids) {
    if (const auto id = tokenizer.special_id(name)) ids.push_back(*id);
  };
  note(kPythonStart, call_begins_);
  note(kOutputStart, call_begins_);
  note(kPythonEnd, call_ends_);
  note(kOutputEnd, call_ends_);
}

bool AnswerText::is_hidden(TokenId id) {
  if (!tokenizer_.is_special(id)) return in_call_ && hide_;
  if (std::find(call_begins_.begin(), call_begins_.end(), id) != call_begins_.end()) in_call_ = true;
  if (std::find(call_ends_.begin(), call_ends_.end(), id) != call_ends_.end()) in_call_ = false;
  return true;
}

bool AnswerText::push(const SampledToken& token, std::vector<SampledToken> top) {
  if (ended_) return false;
  tokens_.push_back({token, std::move(top), decoded_});
  // Ids between the tokenizer's vocabulary and the model's, which is padded, stand for nothing.
  if (token.id >= tokenizer_.vocab_size() || is_hidden(token.id)) return true;
  add(decoder_.push(token.id));
  return !ended_;
}

void AnswerText::add(const std::string& text) {
  decoded_ += text.size();
  waiting_ += text;
  if (const std::size_t stop = find_stop(waiting_, stops_); stop != std::string::npos) {
    ready_ += waiting_.substr(0, stop);
    settled_ += stop;
    waiting_.clear();
    ended_ = true;
    std::erase_if(tokens_, [&](const AnswerToken& one) { return one.offset >= settled_; });
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
  // Without stop strings nothing is taken back; with them, a token whose text waits does too.
  const auto first_waiting = stops_.empty() ? tokens_.end() : std::find_if(tokens_.begin(), tokens_.end(), [&](const AnswerToken& one) {
    return one.offset >= settled_;
  });
  std::vector<AnswerToken> taken(std::make_move_iterator(tokens_.begin()), std::make_move_iterator(first_waiting));
  tokens_.erase(tokens_.begin(), first_waiting);
  return taken;
}

}  // namespace nanochat
