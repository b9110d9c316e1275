#pragma once
// .downloads.jsonl lists the completed files of an output folder, one per line, with SHA-256, size and time stamp. Size and
// time stamp show whether a file has changed since. New lines are appended; the last line of a path counts. Thread-safe.

#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <string>

namespace nanochat {

class DownloadRecord {
 public:
  struct Entry {
    std::string path = {};  // relative to the folder
    std::string url = {};
    std::uint64_t bytes = 0;
    std::int64_t modified_ns = 0;
    std::string sha256 = {};
  };

  // Incomplete lines, which a crash may leave, are skipped.
  explicit DownloadRecord(std::filesystem::path folder);

  std::optional<Entry> find(const std::string& path) const;
  // The line is on the disk when this returns. Throws IoError.
  void add(const Entry& entry);

 private:
  std::filesystem::path file_;
  mutable std::mutex mutex_;
  std::map<std::string, Entry> entries_;
  bool torn_ = false;  // the last line has no newline
};

}  // namespace nanochat
