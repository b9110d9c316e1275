#include "inference/chat.h"

#include <algorithm>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/format.h"
#include "tokenizer/special_tokens.h"

namespace nanochat {

ChatPrompt fit_prompt(const Tokenizer& tokenizer, const Conversation& conversation, std::int64_t max_tokens) {
  constexpr std::int64_t kNoLimit = std::int64_t{1} << 40;
  ChatPrompt prompt;
  Conversation rest = conversation;
  for (;;) {
    prompt.ids = render_prompt(tokenizer, rest, kNoLimit);
    if (static_cast<std::int64_t>(prompt.ids.size()) <= max_tokens) return prompt;
    const std::size_t first = rest.messages.front().role == "system" ? 1 : 0;
    if (rest.messages.size() <= first + 1) {
      throw DataError(fmt::format("the message has {} tokens with what belongs to it, where {} have room", prompt.ids.size(),
                                  max_tokens));
    }
    // A share of what is too much, so that long conversations take few attempts.
    const double excess = 1.0 - static_cast<double>(max_tokens) / static_cast<double>(prompt.ids.size());
    const std::size_t exchanges = (rest.messages.size() - first - 1) / 2;
    const auto share = static_cast<std::size_t>(std::min(excess, 1.0) * 0.5 * static_cast<double>(exchanges));
    const auto drop = std::clamp<std::size_t>(share, 1, exchanges);
    const auto begin = rest.messages.begin() + static_cast<std::ptrdiff_t>(first);
    rest.messages.erase(begin, begin + static_cast<std::ptrdiff_t>(2 * drop));
    prompt.dropped += 2 * drop;
  }
}

std::vector<TokenId> end_tokens(const Tokenizer& tokenizer) {
  std::vector<TokenId> ends;
  for (const std::string_view name : {kBos, std::string_view("<|endoftext|>"), kAssistantEnd}) {
    if (const auto id = tokenizer.special_id(name)) ends.push_back(*id);
  }
  const auto bos = tokenizer.find_bos();
  if (bos && std::find(ends.begin(), ends.end(), *bos) == ends.end()) ends.push_back(*bos);
  return ends;
}

std::vector<MessagePart> answer_parts(const Tokenizer& tokenizer, std::span<const TokenId> ids) {
  std::vector<MessagePart> parts;
  PartType type = PartType::kText;
  std::string text;
  const auto flush = [&](bool even_empty) {
    if (!text.empty() || even_empty) parts.push_back({type, replace_invalid_utf8(text)});
    text.clear();
  };
  for (const TokenId id : ids) {
    if (!tokenizer.is_special(id)) {
      if (id >= 0 && id < tokenizer.vocab_size()) text += tokenizer.token_bytes(id);
      continue;
    }
    const std::string_view name = tokenizer.token_bytes(id);
    if (name == kPythonStart || name == kOutputStart) {
      flush(false);
      type = name == kPythonStart ? PartType::kPython : PartType::kPythonOutput;
    } else if ((name == kPythonEnd && type == PartType::kPython) || (name == kOutputEnd && type == PartType::kPythonOutput)) {
      flush(true);
      type = PartType::kText;
    }
  }
  flush(false);
  return parts;
}

std::string AnswerView::push(TokenId id) {
  std::string shown;
  const bool special = tokenizer_.is_special(id);
  const std::string_view name = special ? tokenizer_.token_bytes(id) : std::string_view();
  if (call_ended_ && name != kOutputStart) {  // it gave no result
    shown += ">>";
    call_open_ = false;
  }
  if (special) shown = decoder_.flush() + shown;
  if (name == kPythonStart) {
    shown += "<<";
    call_open_ = true;
  } else if (name == kOutputStart) {
    shown += call_ended_ ? "=" : "<<";
    call_open_ = true;
  } else if (name == kOutputEnd && call_open_) {
    shown += ">>";
    call_open_ = false;
  }
  call_ended_ = name == kPythonEnd && call_open_;
  if (!special) shown += decoder_.push(id);
  return shown;
}

std::string AnswerView::flush() {
  std::string shown = decoder_.flush();
  if (call_open_) shown += ">>";
  call_open_ = call_ended_ = false;
  return shown;
}

}  // namespace nanochat
