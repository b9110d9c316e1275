#include "core/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "core/errors.h"
#include "core/git_lfs.h"

namespace nanochat {

MappedFile::MappedFile(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw DataError(path.string() + ": cannot be opened: " + std::strerror(errno));
  struct stat status {};
  if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(fd);
    throw DataError(path.string() + ": not a regular file");
  }
  size_ = static_cast<std::size_t>(status.st_size);
  void* address = size_ == 0 ? nullptr : ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
  const int error = errno;
  ::close(fd);  // the map keeps the file alive
  if (address == MAP_FAILED && error == ENOMEM) {
    throw OutOfMemoryError(path.string() + ": no room to map its " + std::to_string(size_) +
                           " bytes; raise the limit of the address space (ulimit -v)");
  }
  if (address == MAP_FAILED) throw DataError(path.string() + ": cannot be mapped: " + std::strerror(error));
  data_ = static_cast<const std::byte*>(address);
  mapped_ = data_ != nullptr;
  if (!mapped_) return;
  try {
    refuse_lfs_pointer({static_cast<const char*>(address), size_}, path);
  } catch (...) {  // the destructor of an object that was never made does not run
    ::munmap(address, size_);
    throw;
  }
}

MappedFile MappedFile::view(std::span<const std::byte> bytes) {
  MappedFile file;
  file.data_ = bytes.data();
  file.size_ = bytes.size();
  return file;
}

void MappedFile::drop_resident() const noexcept {
  if (mapped_) ::madvise(const_cast<std::byte*>(data_), size_, MADV_DONTNEED);
}

MappedFile::~MappedFile() {
  if (mapped_) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)),
      mapped_(std::exchange(other.mapped_, false)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(mapped_, other.mapped_);
  return *this;
}

}  // namespace nanochat
