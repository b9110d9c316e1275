#pragma once
// Files and folders that appear complete or not at all. They are written under a temporary name beside
// the target, flushed with fsync (file, then folder) and renamed. All output of this program uses this.

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

namespace nanochat {

// A file that is being written. If it is destroyed without commit(), it removes the temporary file and does not change
// the target. Not thread-safe. Throws IoError with the name of the target (disk full, read-only, missing folder).
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path target);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, std::size_t bytes);  // buffered
  void write(std::string_view text) { write(text.data(), text.size()); }
  void write_at(std::size_t offset, const void* data, std::size_t bytes);  // overwrites, for example a header
  std::size_t size() const { return size_; }  // number of bytes written so far
  void commit();                              // flush, fsync, rename, fsync the folder

 private:
  void flush();
  std::filesystem::path target_, temporary_;
  int fd_ = -1;
  std::size_t size_ = 0;
  std::string buffer_;
};

// Writes a whole small file.
void write_file_atomically(const std::filesystem::path& target, std::string_view contents);

// A folder that is being written beside `target`. Fill path(), then call commit(), which flushes every file
// in it with fsync and renames the folder. An existing target is removed only after the new one is in place.
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

// Content of a file, or everything from a pipe. Throws DataError if it is missing, is neither a
// regular file nor a pipe, is larger than max_bytes, or is a Git LFS pointer (core/git_lfs.h).
std::string read_file(const std::filesystem::path& path, std::size_t max_bytes = std::size_t{1} << 31);

}  // namespace nanochat
