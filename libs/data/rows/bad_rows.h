#pragma once
// Rows of text that cannot be read: a list of them, and how many may be skipped (--skip-bad).

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

namespace nanochat {

// Shared by the readers of one corpus. Thread-safe.
class BadRows {
 public:
  static constexpr std::uint64_t kAll = UINT64_MAX;
  static constexpr std::size_t kShown = 5;

  explicit BadRows(std::uint64_t allowed) : allowed_(allowed) {}

  // `what` is the error message of the row: "a.jsonl:12: ...".
  // Throws DataError with it if more rows are bad than allowed.
  void add(const std::string& what);
  std::uint64_t count() const;
  std::vector<std::string> examples() const;  // the first kShown
  // Logs warnings: the first rows, then the number of all. Logs nothing if there were none.
  void log() const;

 private:
  const std::uint64_t allowed_;
  mutable std::mutex mutex_;
  std::uint64_t count_ = 0;
  std::vector<std::string> examples_;
};

// The value of --skip-bad: a number of rows, or "all". Throws ConfigError.
std::uint64_t parse_skip_bad(const std::string& text);

}  // namespace nanochat
