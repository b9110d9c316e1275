#include "download/download_record.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <sstream>

#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "core/errors.h"

namespace nanochat {

DownloadRecord::DownloadRecord(std::filesystem::path folder) : file_(std::move(folder) / ".downloads.jsonl") {
  std::error_code ignored;
  if (!std::filesystem::exists(file_, ignored)) return;
  const std::string text = read_file(file_);
  torn_ = !text.empty() && text.back() != '\n';
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    try {
      const nlohmann::json object = nlohmann::json::parse(line);
      Entry entry;
      entry.path = object.at("path").get<std::string>();
      entry.url = object.at("url").get<std::string>();
      entry.bytes = object.at("bytes").get<std::uint64_t>();
      entry.modified_ns = object.at("modified_ns").get<std::int64_t>();
      entry.sha256 = object.at("sha256").get<std::string>();
      entries_[entry.path] = entry;
    } catch (const nlohmann::json::exception&) {
      continue;
    }
  }
}

std::optional<DownloadRecord::Entry> DownloadRecord::find(const std::string& path) const {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(path);
  if (found == entries_.end()) return std::nullopt;
  return found->second;
}

void DownloadRecord::add(const Entry& entry) {
  const std::lock_guard lock(mutex_);
  const nlohmann::json object = {{"path", entry.path},
                                 {"url", entry.url},
                                 {"bytes", entry.bytes},
                                 {"modified_ns", entry.modified_ns},
                                 {"sha256", entry.sha256}};
  const std::string line = (torn_ ? "\n" : "") + object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  const int fd = ::open(file_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  // One write: lines of two processes do not mix.
  const bool written = fd >= 0 && ::write(fd, line.data(), line.size()) == static_cast<ssize_t>(line.size()) &&
                       ::fsync(fd) == 0;
  const int error = errno;
  if (fd >= 0) ::close(fd);
  if (!written) throw IoError(file_.string() + ": cannot write: " + std::strerror(error));
  torn_ = false;
  entries_[entry.path] = entry;
}

}  // namespace nanochat
