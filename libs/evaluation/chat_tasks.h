#pragma once
// The chat tasks that can be asked by name, and tasks that a user describes in a JSON file.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "evaluation/core_bundle.h"
#include "tasks/task.h"

namespace nanochat {

// arc-easy, arc-challenge, mmlu, gsm8k, humaneval, spelling-bee: ChatCORE's, in the reference's order; then the toy
// world's toy-facts, toy-arithmetic, toy-spelling, which need no files.
const std::vector<std::string>& chat_task_names();
bool is_toy_task(const std::string& name);

// The test rows of one. `path`: its files, or a folder of them ("" for the toy world's); spelling-bee reads a list of
// words and asks 256 questions, as the reference does. Rows are in the order in which the reference asks them, so that the
// first N are the same. Throws DataError, ConfigError for another name.
std::shared_ptr<const Task> open_chat_task(const std::string& name, const std::filesystem::path& path);

// A task of a user's own. Exactly one of the two is there: `chat`, or rows for a base model.
struct CustomTask {
  std::string name;
  std::shared_ptr<const Task> chat;
  CoreTask base;
  std::vector<CoreRow> rows;  // in the file's order
};

// {"name", "form", "data", …}; docs/evaluation.md has every key. `form` says how it is asked:
//   multiple_choice     query, choices, gold        which choice does a base model find most likely behind the query
//   schema              contexts, continuation, gold   behind which context is the continuation most likely
//   language_modeling   context, continuation       does the model continue so
//   categorical         prompt, choices, gold       a chat model answers by a letter
//   generative          prompt, answer, metric (final_number | exact | stated)   a chat model writes
// "data" is a .jsonl, relative to the JSON file. Texts are templates, "Q: {question}\nA:", with the keys of a row in
// braces; choices, contexts and gold name a key. Throws ConfigError for the JSON, DataError for the rows, with file and
// line.
CustomTask load_custom_task(const std::filesystem::path& file);

// "{key}" by the row's string, number or boolean; "{{" and "}}" are braces. Throws DataError naming a key that the row
// lacks, ConfigError for a brace that does not close.
std::string fill_template(const std::string& text, const nlohmann::json& row);

}  // namespace nanochat
