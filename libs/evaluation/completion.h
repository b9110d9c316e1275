#pragma once
// Completion tasks: a base model continues each prompt greedily. It is correct if the continuation
// begins with one of the answers. The toy world's held-out phrasings are such a task.

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace nanochat {

class Gpt;
class ProgressReporter;
class Tokenizer;

struct CompletionItem {
  std::string prompt;
  std::vector<std::string> answers;
  std::string topic;
};

struct CompletionScore {
  std::int64_t correct = 0, total = 0;
  double accuracy() const { return total > 0 ? static_cast<double>(correct) / static_cast<double>(total) : 0.0; }
};

struct CompletionResult {
  CompletionScore all;
  std::map<std::string, CompletionScore> by_topic;
  std::vector<std::string> continuations;  // of each item
  std::vector<bool> correct;
};

// Rows {"prompt", "answers": [...], "topic"} of a .jsonl file. Throws DataError with file and line.
std::vector<CompletionItem> read_completion_items(const std::filesystem::path& file);

// True if `continuation`, after white space, begins with `answer` and the word ends there: not "Parisian" for "Paris".
bool begins_with_answer(const std::string& continuation, const std::string& answer);

// Continues max_running prompts at a time, BOS first.
CompletionResult evaluate_completions(Gpt& model, const Tokenizer& tokenizer, const std::vector<CompletionItem>& items,
                                      std::int64_t max_running, ProgressReporter& progress);

}  // namespace nanochat
