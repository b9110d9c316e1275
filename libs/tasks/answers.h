#pragma once
// Reading an answer out of what an assistant wrote. Pure functions.

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "tasks/task.h"

namespace nanochat {

// The number behind the first "#### " that has one, without its commas: "#### 1,234" is "1234". As extract_answer of the
// reference's tasks/gsm8k.py: a run of digits, commas and full stops, after a minus if there is one ("#### 18." is "18.").
std::optional<std::string> final_number(std::string_view text);

// Whether one of `answers` stands in `text` with no letter or digit right before or behind it: "seven" is not in "seventeen".
bool states_answer(std::string_view text, std::span<const std::string> answers);

// Without calls of the calculator and what it gave back: <|python_start|> ... <|python_end|>, <|output_start|> ...
// <|output_end|>, as Tokenizer::decode writes them; one that does not end goes to the end of the text.
std::string without_calls(std::string_view text);

// `answer` as decoded, without <|assistant_end|>. White space around it does not matter. False for kNone and kProgram.
bool is_right_answer(const TaskExample& example, std::string_view answer);

}  // namespace nanochat
