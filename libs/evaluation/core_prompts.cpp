#include "evaluation/core_prompts.h"

#include <algorithm>
#include <array>
#include <utility>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/random.h"

namespace nanochat {
namespace {

constexpr std::uint64_t kFewshotSeed = 1234;

// The space characters of str.isspace() beyond ASCII, in UTF-8.
constexpr std::array<std::string_view, 19> kWideSpaces = {
    "\xC2\x85",     "\xC2\xA0",     "\xE1\x9A\x80", "\xE2\x80\x80", "\xE2\x80\x81", "\xE2\x80\x82", "\xE2\x80\x83",
    "\xE2\x80\x84", "\xE2\x80\x85", "\xE2\x80\x86", "\xE2\x80\x87", "\xE2\x80\x88", "\xE2\x80\x89", "\xE2\x80\x8A",
    "\xE2\x80\xA8", "\xE2\x80\xA9", "\xE2\x80\xAF", "\xE2\x81\x9F", "\xE3\x80\x80"};

bool is_ascii_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r') || (c >= '\x1c' && c <= '\x1f'); }

std::size_t space_at_front(std::string_view text) {
  if (text.empty()) return 0;
  if (is_ascii_space(text.front())) return 1;
  for (const std::string_view space : kWideSpaces) {
    if (text.starts_with(space)) return space.size();
  }
  return 0;
}

std::size_t space_at_back(std::string_view text) {
  if (text.empty()) return 0;
  if (is_ascii_space(text.back())) return 1;
  for (const std::string_view space : kWideSpaces) {
    if (text.ends_with(space)) return space.size();
  }
  return 0;
}

// What stands before the answer of a row, and the answer, when the row is shown as an example.
std::string shown(const CoreTask& task, const CoreRow& row) {
  switch (task.type) {
    case CoreTaskType::kMultipleChoice: return row.context + task.continuation_delimiter + row.options[row.gold];
    case CoreTaskType::kSchema: return row.options[row.gold] + task.continuation_delimiter + row.continuation;
    case CoreTaskType::kLanguageModeling: break;
  }
  return std::string(python_strip(row.context)) + task.continuation_delimiter + row.continuation;
}

// How many tokens all options have in common, as `range` walks through them.
template <class Range>
std::int64_t common_length(const std::vector<PromptSpan>& options, const Range& range) {
  const auto [begin, end] = range(options.front().tokens);
  auto shared = end;
  for (const PromptSpan& option : options) {
    const auto [other, other_end] = range(option.tokens);
    shared = std::mismatch(begin, shared, other, other_end).first;
  }
  return shared - begin;
}

std::int64_t common_prefix(const std::vector<PromptSpan>& options) {
  return common_length(options, [](const std::vector<TokenId>& tokens) { return std::pair{tokens.begin(), tokens.end()}; });
}

std::int64_t common_suffix(const std::vector<PromptSpan>& options) {
  return common_length(options, [](const std::vector<TokenId>& tokens) { return std::pair{tokens.rbegin(), tokens.rend()}; });
}

std::vector<TokenId> encode(const Tokenizer& tokenizer, const std::string& text) {
  std::vector<TokenId> ids{tokenizer.bos_id()};
  tokenizer.encode(text, ids);
  return ids;
}

void cut_left(PromptSpan& option, std::int64_t max_tokens, bool& truncated) {
  const std::int64_t excess = static_cast<std::int64_t>(option.tokens.size()) - max_tokens;
  if (excess <= 0) return;
  option.tokens.erase(option.tokens.begin(), option.tokens.begin() + excess);
  option.start = std::max<std::int64_t>(1, option.start - excess);
  option.end -= excess;
  truncated = true;
}

}  // namespace

std::string_view python_strip(std::string_view utf8) {
  while (const std::size_t n = space_at_front(utf8)) utf8.remove_prefix(n);
  while (const std::size_t n = space_at_back(utf8)) utf8.remove_suffix(n);
  return utf8;
}

std::vector<std::size_t> core_fewshot_rows(std::size_t rows, std::size_t index, std::int64_t num_fewshot) {
  if (num_fewshot == 0) return {};
  if (static_cast<std::int64_t>(rows) <= num_fewshot) {
    throw DataError(fmt::format("{} rows are too few to show {} examples before each", rows, num_fewshot));
  }
  std::vector<std::size_t> sample = PythonRandom(kFewshotSeed + index).sample(rows - 1, static_cast<std::size_t>(num_fewshot));
  for (std::size_t& row : sample) row += row >= index ? 1 : 0;
  return sample;
}

std::vector<std::string> core_prompt_texts(const CoreTask& task, const std::vector<CoreRow>& rows, std::size_t index) {
  std::string examples;
  for (const std::size_t row : core_fewshot_rows(rows.size(), index, task.num_fewshot)) {
    examples += shown(task, rows[row]) + "\n\n";
  }
  const CoreRow& item = rows[index];
  const std::string& delimiter = task.continuation_delimiter;
  std::vector<std::string> texts;
  switch (task.type) {
    case CoreTaskType::kMultipleChoice:
      for (const std::string& choice : item.options) texts.push_back(examples + item.context + delimiter + choice);
      break;
    case CoreTaskType::kSchema:
      for (const std::string& context : item.options) texts.push_back(examples + context + delimiter + item.continuation);
      break;
    case CoreTaskType::kLanguageModeling: {
      const std::string prompt = examples + std::string(python_strip(item.context)) + delimiter;
      texts.emplace_back(python_strip(prompt));  // its last space would be part of the continuation's first token
      texts.push_back(prompt + item.continuation);
      break;
    }
  }
  return texts;
}

CorePrompts core_prompts(const Tokenizer& tokenizer, const CoreTask& task, const std::vector<CoreRow>& rows, std::size_t index,
                         std::int64_t max_tokens) {
  CorePrompts prompts;
  for (const std::string& text : core_prompt_texts(task, rows, index)) {
    PromptSpan option{encode(tokenizer, text), 0, 0};
    option.end = static_cast<std::int64_t>(option.tokens.size());
    prompts.options.push_back(std::move(option));
  }
  std::vector<PromptSpan>& options = prompts.options;
  switch (task.type) {
    case CoreTaskType::kMultipleChoice: {
      const std::int64_t start = common_prefix(options);
      for (PromptSpan& option : options) option.start = start;
      break;
    }
    case CoreTaskType::kSchema: {
      const std::int64_t suffix = common_suffix(options);
      for (PromptSpan& option : options) option.start = std::max<std::int64_t>(1, option.end - suffix);
      break;
    }
    case CoreTaskType::kLanguageModeling: {
      const std::int64_t start = common_prefix(options);
      prompts.boundary_moved = start < options.front().end;
      options.erase(options.begin());
      options.front().start = start;
      if (start == options.front().end) {
        throw DataError(fmt::format("task {}: row {} of the shuffled rows has a continuation of no tokens: \"{}\"", task.label,
                                    index + 1, rows[index].continuation.substr(0, 40)));
      }
      break;
    }
  }
  for (PromptSpan& option : options) cut_left(option, max_tokens, prompts.truncated);
  return prompts;
}

}  // namespace nanochat
