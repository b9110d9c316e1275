#pragma once
// The evaluation bundle of the CORE metric (Li et al. 2024, "DataComp-LM", arXiv 2406.11794) as files on disk:
//
//   core.yaml            the tasks: label, dataset_uri, num_fewshot, icl_task_type, continuation_delimiter
//   eval_data/…          a .jsonl a task, or the same file with .gz behind its name
//   eval_meta_data.csv   "Eval Task" and "Random baseline" (percent)
//
// What is wrong with one task is found when its rows are read, so that the other tasks can run.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace nanochat {

enum class CoreTaskType { kMultipleChoice, kSchema, kLanguageModeling };

struct CoreTask {
  std::string label;
  std::filesystem::path file;  // as found, or as it should be
  std::int64_t num_fewshot = 0;
  CoreTaskType type = CoreTaskType::kMultipleChoice;
  std::string continuation_delimiter = " ";
  std::optional<double> random_baseline;  // accuracy of guessing, 0 to 1; absent where the table has no row
  bool replaced = false;                  // the data file is not the bundle's own
};

struct CoreRow {
  std::string context;               // "query" of a multiple choice, "context" of language modelling
  std::vector<std::string> options;  // "choices", or "context_options" of a schema; none in language modelling
  std::string continuation;          // of schema and language modelling
  std::size_t gold = 0;              // which option is right
};

// The tasks in the order of core.yaml. `task_files`: data files to take instead of the bundle's, by label. Throws
// DataError when the bundle cannot be read (file and line), ConfigError for a label that it does not have.
std::vector<CoreTask> read_core_bundle(const std::filesystem::path& folder,
                                       const std::map<std::string, std::filesystem::path>& task_files = {});

// Throws DataError naming file and line: a missing file, a row without its keys or without `gold`, a gold that is no
// index of an option.
std::vector<CoreRow> read_core_rows(const CoreTask& task);

// The order in which the reference evaluates: shuffled by random.Random(1337), then the first `max_rows` (<= 0: all).
void shuffle_core_rows(std::vector<CoreRow>& rows, std::int64_t max_rows);

}  // namespace nanochat
