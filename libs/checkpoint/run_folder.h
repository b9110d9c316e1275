#pragma once
// A run: runs/NAME/ with config.json (resolved), metrics.jsonl, TensorBoard events, log.txt, checkpoints/step-000100/
// and checkpoints/latest and best (symbolic links, replaced by rename). Described in docs/formats/run-folder.md. One
// process writes a run; readers may come at any time. Not thread-safe.

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
  // Opens or creates. A new run in a folder that already holds one is refused with ConfigError (naming --resume),
  // unless `resume`, which also removes what a crash left half-written. Throws IoError.
  RunFolder(std::filesystem::path folder, bool resume);

  const std::filesystem::path& path() const { return folder_; }
  std::filesystem::path checkpoint_path(std::int64_t step) const { return checkpoint_path(folder_, step); }
  void write_config(const nlohmann::json& resolved);  // config.json, atomically
  // checkpoints/latest -> step-000100, which must exist. Throws IoError.
  void mark_latest(std::int64_t step) { mark("latest", step); }
  void mark_best(std::int64_t step) { mark("best", step); }  // checkpoints/best, likewise
  std::vector<std::int64_t> checkpoint_steps() const { return checkpoint_steps(folder_); }
  // Removes checkpoints but the newest `keep_last` (<= 0: keep all), those in `keep`, the latest and the best. A reader
  // sees a checkpoint whole or not at all. Throws IoError.
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

// What users mean by a run or a checkpoint: `path` itself, or runs/`path` when only that exists; `path` when neither does.
std::filesystem::path locate_run(const std::filesystem::path& path);
// Where locate_run() looks, for errors: "NAME, nor runs/NAME".
std::string places_of_run(const std::filesystem::path& path);

// Appends one JSON object a line to metrics.jsonl and its numbers to a TensorBoard event file. On resume, lines of
// steps after `resume_step` are dropped from metrics.jsonl first, so that the file reads as one uninterrupted run;
// TensorBoard is told to forget the same steps. Not thread-safe.
class MetricsWriter {
 public:
  // resume_step nullopt: nothing is dropped; -1: every step is. Throws IoError.
  MetricsWriter(const std::filesystem::path& run_folder, std::optional<std::int64_t> resume_step = std::nullopt);
  ~MetricsWriter();
  MetricsWriter(const MetricsWriter&) = delete;
  MetricsWriter& operator=(const MetricsWriter&) = delete;
  // `values` must be an object with number, string or bool values; "step" is added. A number that is not finite is
  // null in the line. Both files have the values when this returns. Throws IoError (disk full).
  void write(std::int64_t step, const nlohmann::json& values);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nanochat
