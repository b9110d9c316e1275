#include "core/folder_lock.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <system_error>
#include <utility>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/format.h"
#include "core/log.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;

// flock(2) belongs to the open file, which a child shares. A child of fork() therefore closes its descriptors, which
// leaves the parent's lock alone. The table holds descriptor + 1; 0 is an empty place. Async-signal-safe.
constexpr std::size_t kMaxLocks = 64;
std::array<std::atomic<int>, kMaxLocks> held_descriptors{};

void close_in_child() {
  for (std::atomic<int>& held : held_descriptors) {
    if (const int fd = held.exchange(0) - 1; fd >= 0) ::close(fd);
  }
}

void remember(int fd) {
  static const int registered = ::pthread_atfork(nullptr, nullptr, &close_in_child);
  static_cast<void>(registered);
  for (std::atomic<int>& held : held_descriptors) {
    int empty = 0;
    if (held.compare_exchange_strong(empty, fd + 1)) return;
  }
}

void forget(int fd) {
  for (std::atomic<int>& held : held_descriptors) {
    int expected = fd + 1;
    if (held.compare_exchange_strong(expected, 0)) return;
  }
}

bool is_named(int fd, const fs::path& path) {
  struct stat opened {
  }, named{};
  return ::fstat(fd, &opened) == 0 && ::stat(path.c_str(), &named) == 0 && opened.st_ino == named.st_ino &&
         opened.st_dev == named.st_dev;
}

// The highest folder of the path that does not exist; empty when all do.
fs::path first_missing(fs::path folder) {
  fs::path missing;
  std::error_code ignored;
  while (!folder.empty() && !fs::exists(folder, ignored)) {
    missing = folder;
    folder = folder.parent_path();
  }
  return missing;
}

// "data prepare, process 4711", as the holder wrote it; empty when it has not yet.
std::string holder_of(int fd) {
  std::array<char, 256> bytes{};
  const ssize_t got = ::pread(fd, bytes.data(), bytes.size(), 0);
  const std::string text = on_one_line(std::string(bytes.data(), static_cast<std::size_t>(got > 0 ? got : 0)));
  return replace_invalid_utf8(std::string_view(text).substr(0, text.find('?')));
}

}  // namespace

FolderLock::FolderLock(fs::path folder, const std::string& what) : folder_(std::move(folder)), what_(what), owner_(::getpid()) {
  if (folder_.empty()) folder_ = ".";
  if (!folder_.has_filename() && folder_.has_parent_path()) folder_ = folder_.parent_path();  // "runs/a/"
  file_ = folder_ / kFileName;
  while (!try_lock()) {
  }
}

bool FolderLock::try_lock() {
  std::error_code error;
  if (first_created_.empty()) first_created_ = first_missing(folder_);
  fs::create_directories(folder_, error);
  if (error) throw IoError(fmt::format("cannot create folder {}: {}", folder_.string(), error.message()));
  fd_ = ::open(file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd_ < 0 && errno == ENOENT) return false;  // its last writer removed the folder just now
  if (fd_ < 0) throw IoError(fmt::format("{}: cannot create: {}", file_.string(), std::strerror(errno)));
  if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    const int refused = errno;
    const std::string holder = refused == EWOULDBLOCK ? holder_of(fd_) : "";
    ::close(std::exchange(fd_, -1));
    if (refused == EWOULDBLOCK) {
      throw ConfigError(
          fmt::format("{}: another process is writing to this folder{}; wait until it ends, or name another folder",
                      folder_.string(), holder.empty() ? "" : " (nanochat " + holder + ")"));
    }
    log_warn("{}: this file system cannot lock files ({}); see to it that no other process writes to the folder",
             folder_.string(), std::strerror(refused));
    return true;
  }
  // Between open and flock the last holder may have removed the file: then another process can lock a new one.
  if (!is_named(fd_, file_)) {
    ::close(std::exchange(fd_, -1));
    return false;
  }
  remember(fd_);
  const std::string note = fmt::format("{}, process {}\n", what_, owner_);
  // For messages alone: a full disk does not matter here.
  if (::ftruncate(fd_, 0) == 0) static_cast<void>(::pwrite(fd_, note.data(), note.size(), 0) == 0);
  return true;
}

FolderLock::~FolderLock() {
  if (fd_ < 0 || ::getpid() != owner_) return;
  // While the lock is held nobody else removes or replaces the file.
  if (is_named(fd_, file_)) ::unlink(file_.c_str());
  forget(fd_);
  ::close(fd_);
  if (first_created_.empty()) return;
  for (fs::path folder = folder_; ::rmdir(folder.c_str()) == 0 && folder != first_created_;) folder = folder.parent_path();
}

}  // namespace nanochat
