#pragma once
// Reads the evaluation bundle of the CORE metric (Li et al. 2024, "DataComp-LM", arXiv 2406.11794):
//
//   core.yaml            the tasks: label, dataset_uri, num_fewshot, icl_task_type, continuation_delimiter
//   eval_data/…          one .jsonl per task, or the same file with .gz added to its name
//   eval_meta_data.csv   "Eval Task" and "Random baseline" (percent)
//
// A problem in one task is found when its rows are read; the other tasks can still run.

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
  std::filesystem::path file;  // as found, or as expected
  std::int64_t num_fewshot = 0;
  CoreTaskType type = CoreTaskType::kMultipleChoice;
  std::string continuation_delimiter = " ";
  std::optional<double> random_baseline;  // accuracy of guessing, 0 to 1; absent if the table has no row
  bool replaced = false;                  // the data file is not the bundle's own
};

struct CoreRow {
  std::string context;               // "query" of a multiple choice, "context" of language modelling
  std::vector<std::string> options;  // "choices", or "context_options" of a schema; none in language modelling
  std::string continuation;          // of schema and language modelling
  std::size_t gold = 0;              // index of the correct option
};

// The tasks in the order of core.yaml. `task_files`: data files to use instead of the bundle's, by label.
// Throws DataError if the bundle cannot be read (file and line), and ConfigError for an unknown label.
std::vector<CoreTask> read_core_bundle(const std::filesystem::path& folder,
                                       const std::map<std::string, std::filesystem::path>& task_files = {});

// Throws DataError with file and line for a missing file, a row without its
// keys or without `gold`, or a gold that is not the index of an option.
std::vector<CoreRow> read_core_rows(const CoreTask& task);

// The reference's order: shuffled by random.Random(1337), then the first `max_rows` (<= 0: all).
void shuffle_core_rows(std::vector<CoreRow>& rows, std::int64_t max_rows);

}  // namespace nanochat
