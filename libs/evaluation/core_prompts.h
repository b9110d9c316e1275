#pragma once
// Prompts of a CORE task: the texts, their tokens, and the span of tokens that is scored. They
// are equal token by token to those of nanochat/core_eval.py of the reference, with its templates
// (Jinja) and random numbers (CPython). Free functions of immutable arguments; thread-safe.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "evaluation/core_bundle.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {

// One sequence for the model; tokens [start, end) are scored.
struct PromptSpan {
  std::vector<TokenId> tokens;  // BOS first
  std::int64_t start = 0, end = 0;  // 1 <= start; start == end if an option adds nothing
  bool operator==(const PromptSpan&) const = default;
};

struct CorePrompts {
  std::vector<PromptSpan> options;  // one per option; one in language modelling
  bool truncated = false;           // an option was cut on its left
  bool boundary_moved = false;      // see core_prompts()
};

// The rows that are few-shot examples of row `index`: random.Random(1234
// + index).sample of all others. Throws DataError if there are too few.
std::vector<std::size_t> core_fewshot_rows(std::size_t rows, std::size_t index, std::int64_t num_fewshot);

// The texts of row `index`: one per option; in language modelling, the prompt without and with the continuation.
std::vector<std::string> core_prompt_texts(const CoreTask& task, const std::vector<CoreRow>& rows, std::size_t index);

// Tokens and spans. Multiple choice: from the first difference of the options to the end of each. Schema: the
// common end. Language modelling: the continuation. If the prompt's tokens are not a prefix of the whole (where
// the reference stops), the span begins at the first difference, and `boundary_moved` is set. Sequences longer
// than `max_tokens` are cut on the left. Throws DataError with the row if its continuation has no tokens.
CorePrompts core_prompts(const Tokenizer& tokenizer, const CoreTask& task, const std::vector<CoreRow>& rows, std::size_t index,
                         std::int64_t max_tokens);

// As Python's str.strip(): removes white space of Unicode, not only of ASCII, at both ends.
std::string_view python_strip(std::string_view utf8);

}  // namespace nanochat
