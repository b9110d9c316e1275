#pragma once
// Two tasks over a list of words, after the reference's tasks/spellingbee.py: spell a word, and
// count a letter in it by hand and then with the calculator. The words and letters are those of the
// reference (CPython's random numbers, the same draws in the same order); the sentences are our own.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "tasks/task.h"

namespace nanochat {

enum class TaskSplit { kTrain, kTest };  // of a task whose examples are drawn: tests have seeds of their own

// One word per line, without white space around it, also .gz and .zst. Throws DataError for no word or bad UTF-8.
std::vector<std::string> read_words(const std::filesystem::path& file);

// "Spell the word: apple", answered "apple:a,p,p,l,e". `size` examples, each generated when requested.
std::shared_ptr<const Task> simple_spelling(std::vector<std::string> words, std::int64_t size, TaskSplit split);
// "How many r are in strawberry?" in many forms and some languages; the answer ends with "#### 3".
std::shared_ptr<const Task> spelling_bee(std::vector<std::string> words, std::int64_t size, TaskSplit split);

}  // namespace nanochat
