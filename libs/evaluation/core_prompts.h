#pragma once
// What a model is asked in a CORE task: the texts, their tokens, and the span of tokens that counts. The same, token by
// token, as nanochat/core_eval.py of the reference, whose templates (Jinja) and random numbers (CPython) these follow.
// Free functions of immutable arguments: thread-safe.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "evaluation/core_bundle.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {

// One sequence that the model reads; what it says about tokens [start, end) is the answer.
struct PromptSpan {
  std::vector<TokenId> tokens;  // BOS first
  std::int64_t start = 0, end = 0;  // 1 <= start; start == end where an option adds nothing
  bool operator==(const PromptSpan&) const = default;
};

struct CorePrompts {
  std::vector<PromptSpan> options;  // one for each option; one in language modelling
  bool truncated = false;           // an option lost tokens on its left
  bool boundary_moved = false;      // see core_prompts()
};

// Which rows are shown as examples before row `index`: random.Random(1234 + index).sample of all others. Throws
// DataError when there are too few.
std::vector<std::size_t> core_fewshot_rows(std::size_t rows, std::size_t index, std::int64_t num_fewshot);

// The texts of row `index`: one for each option; in language modelling the prompt without and with the continuation.
std::vector<std::string> core_prompt_texts(const CoreTask& task, const std::vector<CoreRow>& rows, std::size_t index);

// Tokens and spans. Multiple choice: from where the options begin to differ to the end of each. Schema: the common end.
// Language modelling: the continuation; where the tokens of the prompt are not a beginning of those of the whole (the
// reference stops there), from where they part, which `boundary_moved` says. Sequences longer than `max_tokens` lose
// tokens on the left. Throws DataError naming the row when its continuation has no tokens.
CorePrompts core_prompts(const Tokenizer& tokenizer, const CoreTask& task, const std::vector<CoreRow>& rows,
                         std::size_t index, std::int64_t max_tokens);

// Without what str.strip() of Python takes off both ends: white space of Unicode, not only of ASCII.
std::string_view python_strip(std::string_view utf8);

}  // namespace nanochat
