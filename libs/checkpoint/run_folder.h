#pragma once
// A run: runs/NAME/ with config.json (resolved), metrics.jsonl, TensorBoard events, log.txt, checkpoints/step-000100/
// and checkpoints/latest (a symbolic link, replaced by rename).

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace nanochat {

class RunFolder {
 public:
  // Opens or creates. A new run in a folder that already holds one is refused with ConfigError (naming --resume),
  // unless `resume`. Throws IoError.
  RunFolder(std::filesystem::path folder, bool resume);

  const std::filesystem::path& path() const { return folder_; }
  std::filesystem::path checkpoint_path(std::int64_t step) const;       // checkpoints/step-000100
  void write_config(const nlohmann::json& resolved);                    // config.json, atomically
  void mark_latest(std::int64_t step);                                  // checkpoints/latest -> step-000100
  std::vector<std::int64_t> checkpoint_steps() const;                   // ascending
  // Removes checkpoints but the newest `keep_last` (<= 0: keep all), those in `keep`, and the latest.
  void prune_checkpoints(std::int64_t keep_last, const std::vector<std::int64_t>& keep = {});

 private:
  std::filesystem::path folder_;
};

// Appends one JSON object a line to metrics.jsonl and its numbers to a TensorBoard event file. On resume, lines of steps
// after `resume_step` are dropped from metrics.jsonl first, so that the file reads as one uninterrupted run.
class MetricsWriter {
 public:
  MetricsWriter(const std::filesystem::path& run_folder, std::int64_t resume_step = -1);
  ~MetricsWriter();
  MetricsWriter(const MetricsWriter&) = delete;
  MetricsWriter& operator=(const MetricsWriter&) = delete;
  // `values` must be an object with number, string or bool values; "step" is added. Flushed at once.
  void write(std::int64_t step, const nlohmann::json& values);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nanochat
