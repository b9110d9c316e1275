#pragma once
// Two tasks over a list of words, after the reference's tasks/spellingbee.py: to spell a word, and to count a letter in it,
// by hand and then with the calculator. The words and letters drawn are the reference's (CPython's random numbers, the same
// draws in the same order); the sentences are our own.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "tasks/task.h"

namespace nanochat {

enum class TaskSplit { kTrain, kTest };  // of a task whose examples are drawn: tests have seeds of their own

// A word a line, white space around it dropped, also .gz and .zst. Throws DataError when a line is not UTF-8, or there is none.
std::vector<std::string> read_words(const std::filesystem::path& file);

// "Spell the word: apple", answered "apple:a,p,p,l,e". `size` examples, drawn one by one when asked for.
std::shared_ptr<const Task> simple_spelling(std::vector<std::string> words, std::int64_t size, TaskSplit split);
// "How many r are in strawberry?" in many forms and some languages; the answer ends with "#### 3".
std::shared_ptr<const Task> spelling_bee(std::vector<std::string> words, std::int64_t size, TaskSplit split);

}  // namespace nanochat
