#pragma once
// Allows one process at a time to write into a folder: a data preparation, a training run, a download.
//
//   const FolderLock lock(output_dir, "data prepare");  // throws ConfigError while another process holds it
//
// The lock is flock(2) on the file ".lock" in the folder. The kernel releases it when the process
// ends in any way; after kill -9 the next process gets it at once. A child made by fork() does
// not hold the lock, so a child that outlives its parent does not block others. Readers need no
// lock. On a file system without locks, the constructor logs a warning and continues.

#include <sys/types.h>

#include <filesystem>
#include <string>

namespace nanochat {

class FolderLock {
 public:
  static constexpr const char* kFileName = ".lock";

  // Creates the folder if it does not exist. `what` is the command that writes. The error of
  // a refused process has this command and the process id. Throws ConfigError if this or
  // another process holds the lock, and IoError if the folder or the file cannot be created.
  FolderLock(std::filesystem::path folder, const std::string& what);
  // Removes the file, and the folders that the constructor created if they are empty.
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

  bool created_folder() const { return !first_created_.empty(); }

 private:
  bool try_lock();  // false: the file was removed meanwhile; try again

  std::filesystem::path folder_, file_;
  std::filesystem::path first_created_;  // topmost folder that was created; empty if all existed
  std::string what_;
  int fd_ = -1;
  pid_t owner_ = -1;
};

}  // namespace nanochat
