#include "core/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "core/errors.h"
#include "core/git_lfs.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kBufferBytes = std::size_t{1} << 20;

[[noreturn]] void fail(const fs::path& target, const char* action, int error) {
  throw IoError(target.string() + ": cannot " + action + ": " + std::strerror(error));
}

// "runs/a/" and "runs/a" are the same folder.
fs::path without_trailing_slash(fs::path path) {
  if (!path.has_filename() && path.has_parent_path()) path = path.parent_path();
  return path;
}

// A name beside the target that no other process or thread of this program uses: rename stays within one file system.
fs::path temporary_beside(const fs::path& target) {
  static std::atomic<unsigned> counter{0};
  return target.parent_path() /
         ("." + target.filename().string() + ".tmp-" + std::to_string(::getpid()) + "-" + std::to_string(counter.fetch_add(1)));
}

void write_fully(int fd, const char* data, std::size_t bytes, const fs::path& target) {
  while (bytes > 0) {
    const ssize_t written = ::write(fd, data, bytes);
    if (written < 0) {
      if (errno == EINTR) continue;
      fail(target, "write", errno);
    }
    data += written;
    bytes -= static_cast<std::size_t>(written);
  }
}

// Makes a name (a file's contents, or the entries of a folder) survive a power cut.
void sync_path(const fs::path& path, const fs::path& target) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail(target, "open to flush", errno);
  // Some file systems refuse to fsync a folder with EINVAL; there is nothing more to ask of them.
  const int result = ::fsync(fd);
  const int error = errno;
  ::close(fd);
  if (result != 0 && error != EINVAL) fail(target, "flush", error);
}

fs::path parent_or_current(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

[[noreturn]] void fail_too_large(const fs::path& path, std::uintmax_t size, std::size_t max_bytes) {
  throw DataError(path.string() + ": is " + std::to_string(size) + " bytes, more than the " + std::to_string(max_bytes) +
                  " that are read at once");
}

// All that comes out of a pipe: <(...) of a shell, /dev/stdin.
std::string read_pipe(const fs::path& path, std::size_t max_bytes) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw DataError(path.string() + ": cannot be opened: " + std::strerror(errno));
  std::string contents;
  std::string part(std::size_t{1} << 16, '\0');
  while (stream) {
    stream.read(part.data(), static_cast<std::streamsize>(part.size()));
    contents.append(part, 0, static_cast<std::size_t>(stream.gcount()));
    if (contents.size() > max_bytes) fail_too_large(path, contents.size(), max_bytes);
  }
  if (!stream.eof()) throw DataError(path.string() + ": cannot be read: " + std::strerror(errno));
  return contents;
}

}  // namespace

AtomicFile::AtomicFile(fs::path target) : target_(std::move(target)) {
  struct stat status {};
  if (::stat(target_.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) {
    throw IoError(target_.string() + ": exists and is not a regular file; give the name of a file");
  }
  // A link keeps pointing where it did; the file behind it is replaced.
  std::error_code ignored;
  if (fs::is_symlink(target_, ignored)) target_ = fs::weakly_canonical(target_);
  temporary_ = temporary_beside(target_);
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd_ < 0) fail(target_, "create", errno);
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, std::size_t bytes) {
  buffer_.append(static_cast<const char*>(data), bytes);
  size_ += bytes;
  if (buffer_.size() >= kBufferBytes) flush();
}

void AtomicFile::write_at(std::size_t offset, const void* data, std::size_t bytes) {
  if (offset > size_ || bytes > size_ - offset) {
    throw std::out_of_range("AtomicFile::write_at overwrites only what was written");
  }
  flush();
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::pwrite(fd_, next, bytes, static_cast<off_t>(offset));
    if (written < 0) {
      if (errno == EINTR) continue;
      fail(target_, "write", errno);
    }
    next += written;
    offset += static_cast<std::size_t>(written);
    bytes -= static_cast<std::size_t>(written);
  }
}

void AtomicFile::flush() {
  write_fully(fd_, buffer_.data(), buffer_.size(), target_);
  buffer_.clear();
}

void AtomicFile::commit() {
  flush();
  if (::fsync(fd_) != 0) fail(target_, "flush", errno);
  const int fd = std::exchange(fd_, -1);
  const bool closed = ::close(fd) == 0;
  const int close_error = errno;
  if (!closed || ::rename(temporary_.c_str(), target_.c_str()) != 0) {
    const int error = closed ? errno : close_error;
    ::unlink(temporary_.c_str());
    fail(target_, "replace", error);
  }
  sync_path(parent_or_current(target_), target_);
}

void write_file_atomically(const fs::path& target, std::string_view contents) {
  AtomicFile file(target);
  file.write(contents);
  file.commit();
}

AtomicDirectory::AtomicDirectory(fs::path target) : target_(without_trailing_slash(std::move(target))) {
  std::error_code error;
  if (fs::exists(target_, error) && !fs::is_directory(target_, error)) {
    throw IoError(target_.string() + ": exists and is not a folder; give the name of a folder");
  }
  if (fs::is_symlink(target_, error)) target_ = fs::weakly_canonical(target_);
  temporary_ = temporary_beside(target_);
  if (!fs::create_directory(temporary_, error)) fail(target_, "create", error.value());
}

AtomicDirectory::~AtomicDirectory() {
  if (committed_) return;
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);
}

void AtomicDirectory::commit() {
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(temporary_)) {
    if (entry.is_regular_file() || entry.is_directory()) sync_path(entry.path(), target_);
  }
  sync_path(temporary_, target_);

  fs::path replaced;
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) {
    if (errno != ENOTEMPTY && errno != EEXIST) fail(target_, "replace", errno);
    // Exchanging the two names leaves no moment without a target; file systems that cannot do it move it aside first.
    if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, target_.c_str(), RENAME_EXCHANGE) == 0) {
      replaced = temporary_;
    } else {
      replaced = temporary_beside(target_);
      if (::rename(target_.c_str(), replaced.c_str()) != 0) fail(target_, "replace", errno);
      if (::rename(temporary_.c_str(), target_.c_str()) != 0) {
        const int error = errno;
        ::rename(replaced.c_str(), target_.c_str());
        fail(target_, "replace", error);
      }
    }
  }
  committed_ = true;
  sync_path(parent_or_current(target_), target_);
  std::error_code ignored;  // what was replaced no longer matters
  if (!replaced.empty()) fs::remove_all(replaced, ignored);
}

std::string read_file(const fs::path& path, std::size_t max_bytes) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found) throw DataError(path.string() + ": no such file");
  if (status.type() == fs::file_type::directory) throw DataError(path.string() + ": is a folder, expected a file");
  if (status.type() == fs::file_type::fifo) return read_pipe(path, max_bytes);
  if (status.type() != fs::file_type::regular) {
    throw DataError(path.string() + ": not a regular file" + (error ? " (" + error.message() + ")" : ""));
  }
  const std::uintmax_t size = fs::file_size(path, error);
  if (error) throw DataError(path.string() + ": " + error.message());
  if (size > max_bytes) fail_too_large(path, size, max_bytes);
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw DataError(path.string() + ": cannot be opened: " + std::strerror(errno));
  std::string contents(static_cast<std::size_t>(size), '\0');
  stream.read(contents.data(), static_cast<std::streamsize>(size));
  if (stream.gcount() != static_cast<std::streamsize>(size)) {
    throw DataError(path.string() + ": ended after " + std::to_string(stream.gcount()) + " of " + std::to_string(size) +
                    " bytes while it was read");
  }
  refuse_lfs_pointer(contents, path);
  return contents;
}

}  // namespace nanochat
