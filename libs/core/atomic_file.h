#pragma once
// Files and folders that appear whole or not at all: written under a temporary name beside the target, flushed with
// fsync (file, then folder), then renamed. Used for everything this program leaves on disk.

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

namespace nanochat {

// A file under construction. Destroyed without commit(), it removes its temporary and leaves the target untouched.
// Not thread-safe. Throws IoError (disk full, read-only, missing folder) naming the target.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path target);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, std::size_t bytes);  // buffered
  void write(std::string_view text) { write(text.data(), text.size()); }
  void write_at(std::size_t offset, const void* data, std::size_t bytes);  // overwrites, e.g. a header
  std::size_t size() const { return size_; }  // bytes written so far
  void commit();                              // flush, fsync, rename, fsync the folder

 private:
  void flush();
  std::filesystem::path target_, temporary_;
  int fd_ = -1;
  std::size_t size_ = 0;
  std::string buffer_;
};

// Writes a whole small file at once.
void write_file_atomically(const std::filesystem::path& target, std::string_view contents);

// A folder under construction beside `target`: fill path(), then commit(). commit() fsyncs every file in it and
// renames; an existing target is replaced and removed only after the new one stands.
class AtomicDirectory {
 public:
  explicit AtomicDirectory(std::filesystem::path target);
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;
  const std::filesystem::path& path() const { return temporary_; }
  void commit();

 private:
  std::filesystem::path target_, temporary_;
  bool committed_ = false;
};

// Whole file as bytes, or all that comes out of a pipe. Throws DataError if it is missing, neither a regular file nor a
// pipe, larger than max_bytes, or a Git LFS pointer (core/git_lfs.h).
std::string read_file(const std::filesystem::path& path, std::size_t max_bytes = std::size_t{1} << 31);

}  // namespace nanochat
