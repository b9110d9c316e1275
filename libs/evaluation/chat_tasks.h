#pragma once
// The built-in chat tasks, by name, and custom tasks described in a JSON file.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "evaluation/core_bundle.h"
#include "tasks/task.h"

namespace nanochat {

// The tasks of ChatCORE in the reference's order: arc-easy, arc-challenge, mmlu, gsm8k, humaneval, spelling-bee. Then the tasks
// of the toy world, which need no files: toy-facts, toy-arithmetic, toy-spelling.
const std::vector<std::string>& chat_task_names();
bool is_toy_task(const std::string& name);

// Opens the test rows of a task. `path`: its file, or a folder with its files ("" for tasks of the toy world). spelling-bee
// reads a list of words and asks 256 questions, as the reference does. Rows are in the reference's order, so the first N rows
// are equal. Throws DataError, and ConfigError for an unknown name.
std::shared_ptr<const Task> open_chat_task(const std::string& name, const std::filesystem::path& path);

// A custom task. Exactly one of the two is set: `chat`, or rows for a base model.
struct CustomTask {
  std::string name;
  std::shared_ptr<const Task> chat;
  CoreTask base;
  std::vector<CoreRow> rows;  // in the file's order
};

// {"name", "form", "data", …}; docs/evaluation.md describes every key. `form` is how the task is scored:
//   multiple_choice    query, choices, gold            the most likely choice after the query (base model)
//   schema             contexts, continuation, gold    the context after which the continuation is most likely
//   language_modeling  context, continuation           whether the model generates this continuation
//   categorical        prompt, choices, gold           a chat model answers with a letter
//   generative         prompt, answer, metric          a chat model writes an answer (final_number, exact or stated)
// "data" is a .jsonl file, relative to the JSON file. Texts are templates such as "Q: {question}\nA:" with keys of the row in
// braces; choices, contexts and gold name a key. Throws ConfigError for the JSON file and DataError with file and line for
// rows.
CustomTask load_custom_task(const std::filesystem::path& file);

// Replaces "{key}" by the row's string, number or boolean; "{{" and "}}" are braces.
// Throws DataError with a key that the row lacks, and ConfigError for an unclosed brace.
std::string fill_template(const std::string& text, const nlohmann::json& row);

}  // namespace nanochat
