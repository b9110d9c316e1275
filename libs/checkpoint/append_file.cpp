#include "checkpoint/append_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/errors.h"

namespace nanochat {

AppendFile::AppendFile(std::filesystem::path path, bool exclusive) : path_(std::move(path)) {
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (exclusive ? O_EXCL : 0), 0666);
  if (fd_ < 0) throw IoError(path_.string() + ": cannot be opened: " + std::strerror(errno));
}

AppendFile::~AppendFile() { ::close(fd_); }

void AppendFile::append(std::string_view record) {
  while (!record.empty()) {
    const ssize_t written = ::write(fd_, record.data(), record.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      throw IoError(path_.string() + ": cannot be written: " + std::strerror(errno));
    }
    record.remove_prefix(static_cast<std::size_t>(written));
  }
}

}  // namespace nanochat
