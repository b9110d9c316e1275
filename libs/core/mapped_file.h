#pragma once
// A read-only memory map of a whole file, or a view of bytes in memory.

#include <cstddef>
#include <filesystem>
#include <span>

namespace nanochat {

class MappedFile {
 public:
  // Throws DataError with the path if the file is missing, a folder, unreadable or a Git LFS
  // pointer, and OutOfMemoryError if it cannot be mapped. An empty file gives an empty span.
  explicit MappedFile(const std::filesystem::path& path);
  // A view of bytes, aligned to 8, that the caller keeps at least as long. File readers can use it like a file.
  static MappedFile view(std::span<const std::byte> bytes);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  // Releases the pages that were read. Reading them again loads them again.
  void drop_resident() const noexcept;

 private:
  MappedFile() = default;

  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  bool mapped_ = false;  // mapped, and must be unmapped
};

}  // namespace nanochat
