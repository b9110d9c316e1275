#pragma once
// .downloads.jsonl: what stands in an output folder, a line a file, with its SHA-256 and the size and time stamp by which
// a file that was changed since is recognised. Appended to; the last line for a path counts. Thread-safe.

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
    std::string path = {};  // below the folder
    std::string url = {};
    std::uint64_t bytes = 0;
    std::int64_t modified_ns = 0;
    std::string sha256 = {};
  };

  // Lines that a crash left unfinished are passed over.
  explicit DownloadRecord(std::filesystem::path folder);

  std::optional<Entry> find(const std::string& path) const;
  // On the disk when it returns. Throws IoError.
  void add(const Entry& entry);

 private:
  std::filesystem::path file_;
  mutable std::mutex mutex_;
  std::map<std::string, Entry> entries_;
  bool torn_ = false;  // the last line lacks its end
};

}  // namespace nanochat
