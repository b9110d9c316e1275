#pragma once
// A run: runs/NAME/ with config.json (resolved), metrics.jsonl, TensorBoard events, log.txt, checkpoints/step-000100/
// and checkpoints/latest and best (symbolic links, replaced by rename). docs/formats/run-folder.md describes it. One
// process writes a run; others may read it at any time. Not thread-safe.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace nanochat {

class RunFolder {
 public:
  // Opens or creates a run. A new run in a folder with a run is refused with ConfigError (which names
  // --resume), unless `resume`, which also removes incomplete files left by a crash. Throws IoError.
  RunFolder(std::filesystem::path folder, bool resume);

  const std::filesystem::path& path() const { return folder_; }
  std::filesystem::path checkpoint_path(std::int64_t step) const { return checkpoint_path(folder_, step); }
  void write_config(const nlohmann::json& resolved);  // config.json, atomically
  // checkpoints/latest -> step-000100, which must exist. Throws IoError.
  void mark_latest(std::int64_t step) { mark("latest", step); }
  void mark_best(std::int64_t step) { mark("best", step); }  // checkpoints/best, likewise
  std::vector<std::int64_t> checkpoint_steps() const { return checkpoint_steps(folder_); }
  // Removes checkpoints except the newest `keep_last` (<= 0: keep all), those in `keep`, the
  // latest and the best. A reader sees a checkpoint completely or not at all. Throws IoError.
  void prune_checkpoints(std::int64_t keep_last, const std::vector<std::int64_t>& keep = {});

  // The same for a run that is only read.
  static std::filesystem::path checkpoint_path(const std::filesystem::path& run,
                                               std::int64_t step);                      // checkpoints/step-000100
  static std::vector<std::int64_t> checkpoint_steps(const std::filesystem::path& run);  // ascending

 private:
  void mark(const char* name, std::int64_t step);
  void remove_leftovers() const;
  std::filesystem::path folder_;
};

// A run or checkpoint as users name it: `path`, or runs/`path` if only that exists; `path` if neither exists.
std::filesystem::path locate_run(const std::filesystem::path& path);
// The places where locate_run() looks, for errors: "NAME, nor runs/NAME".
std::string places_of_run(const std::filesystem::path& path);

// Appends one JSON object per line to metrics.jsonl, and its numbers to a TensorBoard event file.
// On resume, lines of steps after `resume_step` are first removed from metrics.jsonl, so the file
// is that of one uninterrupted run; TensorBoard is told to ignore the same steps. Not thread-safe.
class MetricsWriter {
 public:
  // resume_step nullopt: nothing is removed; -1: all steps are removed. Throws IoError.
  MetricsWriter(const std::filesystem::path& run_folder, std::optional<std::int64_t> resume_step = std::nullopt);
  ~MetricsWriter();
  MetricsWriter(const MetricsWriter&) = delete;
  MetricsWriter& operator=(const MetricsWriter&) = delete;
  // `values` must be an object with number, string or bool values; "step" is added. A number that is not
  // finite becomes null in the line. Both files have the values when this returns. Throws IoError (disk full).
  void write(std::int64_t step, const nlohmann::json& values);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nanochat
