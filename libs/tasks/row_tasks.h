#pragma once
// Tasks whose examples stand in files (data/rows/rows.h): conversations, GSM8K, MMLU, ARC, HumanEval. Rows have the columns of
// the sets on Hugging Face, whichever the file. Examples are in memory, in the order of the files.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "tasks/task.h"

namespace nanochat {

// The rules for one row of each. Throw DataError with what the row lacks (without its place).
TaskExample gsm8k_example(const nlohmann::json& row);      // question, answer
TaskExample mmlu_example(const nlohmann::json& row);       // question, choices, answer (an index), subject
TaskExample arc_example(const nlohmann::json& row);        // question, choices {text, label}, answerKey
TaskExample humaneval_example(const nlohmann::json& row);  // prompt, canonical_solution, test, entry_point

// A question with its choices, as formatted by render_mc of the reference's tasks/common.py.
std::string multiple_choice_question(const std::string& question, const std::vector<std::string>& letters,
                                     const std::vector<std::string>& choices);
// An answer of GSM8K as text and calls of the calculator: "4*2 = <<4*2=8>>8" is text, a call of "4*2", its output "8", text.
std::vector<MessagePart> calculator_parts(const std::string& answer);

enum class RowTask { kConversations, kGsm8k, kMmlu, kArc, kHumanEval };

// `name` is the name of the task. Rows that do not fit are errors with file and line; with
// `skip_bad` they are counted, logged and left out. Throws DataError, also if nothing is left.
std::shared_ptr<const Task> load_row_task(RowTask kind, std::string name, const std::vector<std::filesystem::path>& files,
                                          bool skip_bad = false);

}  // namespace nanochat
