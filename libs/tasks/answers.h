#pragma once
// Extracts an answer from what an assistant wrote. Pure functions.

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "tasks/task.h"

namespace nanochat {

// The number after the first "#### " that has one, without its commas: "#### 1,234" is "1234". As extract_answer of the
// reference's tasks/gsm8k.py: a run of digits, commas and full stops, after an optional minus ("#### 18." is "18.").
std::optional<std::string> final_number(std::string_view text);

// True if one of `answers` occurs in `text` between non-alphanumeric characters: "seven" is not in "seventeen".
bool states_answer(std::string_view text, std::span<const std::string> answers);

// Removes calls of the calculator and their results: <|python_start|> ... <|python_end|>, <|output_start|>
// ... <|output_end|>, as Tokenizer::decode writes them. One without an end extends to the end of the text.
std::string without_calls(std::string_view text);

// `answer` as decoded, without <|assistant_end|>. White space around it is ignored. False for kNone and kProgram.
bool is_right_answer(const TaskExample& example, std::string_view answer);

}  // namespace nanochat
