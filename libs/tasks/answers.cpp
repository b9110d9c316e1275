#include "tasks/answers.h"

#include <algorithm>
#include <cctype>

#include "tokenizer/special_tokens.h"

namespace nanochat {
namespace {

bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || static_cast<unsigned char>(c) >= 0x80; }

bool is_of_number(char c) { return (c >= '0' && c <= '9') || c == ',' || c == '.'; }

bool states(std::string_view text, std::string_view answer) {
  if (answer.empty()) return false;
  for (std::size_t at = text.find(answer); at != std::string_view::npos; at = text.find(answer, at + 1)) {
    const std::size_t end = at + answer.size();
    const bool begins = at == 0 || !is_word(text[at - 1]) || !is_word(answer.front());
    const bool ends = end == text.size() || !is_word(text[end]) || !is_word(answer.back());
    if (begins && ends) return true;
  }
  return false;
}

std::string_view trim(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

// Without what stands between `open` and `close`, and them.
std::string without(std::string_view text, std::string_view open, std::string_view close) {
  std::string rest;
  for (;;) {
    const std::size_t begin = text.find(open);
    rest += text.substr(0, begin);
    if (begin == std::string_view::npos) return rest;
    const std::size_t end = text.find(close, begin);
    if (end == std::string_view::npos) return rest;
    text.remove_prefix(end + close.size());
  }
}

}  // namespace

std::optional<std::string> final_number(std::string_view text) {
  constexpr std::string_view kMark = "#### ";
  for (std::size_t at = text.find(kMark); at != std::string_view::npos; at = text.find(kMark, at + 1)) {
    std::size_t begin = at + kMark.size();
    std::string number;
    if (begin < text.size() && text[begin] == '-') number += text[begin++];
    std::size_t end = begin;
    for (; end < text.size() && is_of_number(text[end]); ++end) {
      if (text[end] != ',') number += text[end];
    }
    if (end > begin) return number;
  }
  return std::nullopt;
}

bool states_answer(std::string_view text, std::span<const std::string> answers) {
  return std::any_of(answers.begin(), answers.end(), [&](const std::string& answer) { return states(text, answer); });
}

std::string without_calls(std::string_view text) {
  return without(without(text, kPythonStart, kPythonEnd), kOutputStart, kOutputEnd);
}

bool is_right_answer(const TaskExample& example, std::string_view answer) {
  const auto& answers = example.answers;
  const auto is_one = [&](std::string_view text) { return std::find(answers.begin(), answers.end(), text) != answers.end(); };
  switch (example.rule) {
    case AnswerRule::kNone:
    case AnswerRule::kProgram: return false;
    case AnswerRule::kLetter: return is_one(trim(answer));
    case AnswerRule::kFinalNumber: return is_one(final_number(answer).value_or(""));
    case AnswerRule::kStated: return states_answer(without_calls(answer), answers);
    case AnswerRule::kExact: return is_one(trim(without_calls(answer)));
  }
  return false;
}

}  // namespace nanochat
