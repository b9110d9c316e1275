#pragma once
// A file that grows by whole records. The operating
// system has each record when append() returns.

#include <filesystem>
#include <string_view>

namespace nanochat {

class AppendFile {
 public:
  // `exclusive`: the file must not exist yet. Throws IoError.
  AppendFile(std::filesystem::path path, bool exclusive);
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;
  void append(std::string_view record);  // throws IoError

 private:
  std::filesystem::path path_;
  int fd_ = -1;
};

}  // namespace nanochat
