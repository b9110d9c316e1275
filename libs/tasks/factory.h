#pragma once
// Tasks and mixtures from a few lines of JSON:
//
//   {"seed": 42, "tasks": [
//     {"task": "smoltalk", "path": "data/smoltalk", "split": "train"},
//     {"task": "gsm8k", "path": "data/gsm8k", "split": "train"},
//     {"task": "conversations", "path": "data/identity/identity_conversations.jsonl", "repeats": 2},
//     {"task": "spelling", "path": "data/words/words_alpha.txt", "size": 200000}]}
//
// A bare array of such entries is also a mixture. Comments (//) are
// allowed. task_options() describes the keys; docs/data.md lists the tasks.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "core/options.h"
#include "tasks/task.h"
#include "tasks/task_mixture.h"

namespace nanochat {

struct TaskSpec {
  std::string task;                // task_names()
  std::vector<std::string> path;   // files, folders, globs; in a folder, the files of `split` (and `subset`)
  std::string split, subset;       // "train", "validation", "test", "dev"; "ARC-Easy", "auxiliary_train"
  std::int64_t size = 0;           // number of examples of a task that generates them; 0: its default
  std::uint64_t seed = 42;
  std::int64_t start = 0, stop = 0;  // rows [start, stop); stop 0: the end
  bool skip_bad = false;
  double repeats = 1.0, weight = 0.0;  // in a mixture (task_mixture.h)
  std::int64_t cap = 0;
};

std::vector<std::string> task_names();
// The keys of an entry, bound to `spec`, which must outlive the list.
OptionList task_options(TaskSpec& spec);

// Throw ConfigError with `where` and the key, and the nearest known key or task; DataError for files.
TaskSpec parse_task(const nlohmann::json& entry, const std::string& where);
std::shared_ptr<const Task> make_task(const TaskSpec& spec);
std::shared_ptr<const TaskMixture> make_mixture(const nlohmann::json& value, const std::string& where);
std::shared_ptr<const TaskMixture> load_mixture(const std::filesystem::path& file);

// The files of a path that belong to a split: files of a folder with the split (and the subset) as a word of their path
// below it ("main/train-00000-of-00001.parquet"); any other path unchanged. Throws DataError with what is there instead.
std::vector<std::filesystem::path> task_files(const std::vector<std::string>& paths, const std::string& split,
                                              const std::string& subset);

}  // namespace nanochat
