#pragma once
// One writer at a time in a folder: a preparation, a training run, a download.
//
//   const FolderLock lock(output_dir, "data prepare");  // throws ConfigError while another process holds it
//
// The lock is flock(2) on the file ".lock" in the folder. The kernel releases it when the process ends, however it
// ends: after kill -9 the next process gets it at once. A child made by fork() does not hold it, so that a child that
// outlives its parent keeps nobody out. Readers of the folder need no lock. On a file system without locks the
// constructor warns and goes on.

#include <sys/types.h>

#include <filesystem>
#include <string>

namespace nanochat {

class FolderLock {
 public:
  static constexpr const char* kFileName = ".lock";

  // Creates the folder when it is not there. `what` is the command that writes: the message of the process that is
  // refused names it, with the process id. Throws ConfigError when the lock is held, by this process or another one,
  // IoError when the folder or the file cannot be created.
  FolderLock(std::filesystem::path folder, const std::string& what);
  // Removes the file, and those folders that the constructor created and that hold nothing else.
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

  bool created_folder() const { return !first_created_.empty(); }

 private:
  bool try_lock();  // false: the file was removed meanwhile, try again

  std::filesystem::path folder_, file_;
  std::filesystem::path first_created_;  // the folder or the highest of those above it; empty when all were there
  std::string what_;
  int fd_ = -1;
  pid_t owner_ = -1;
};

}  // namespace nanochat
