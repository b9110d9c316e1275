#pragma once
// A read-only memory map of a whole file, or a view of bytes that are in memory already.

#include <cstddef>
#include <filesystem>
#include <span>

namespace nanochat {

class MappedFile {
 public:
  // Throws DataError naming the path when it is missing, a folder, unreadable or a Git LFS pointer, OutOfMemoryError when
  // there is no room to map it. An empty file maps to an empty span.
  explicit MappedFile(const std::filesystem::path& path);
  // Bytes that someone else keeps, for at least as long, at a multiple of 8: readers of files read them as a file.
  static MappedFile view(std::span<const std::byte> bytes);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  // Gives the pages that were read back to the system; reading them again fetches them again.
  void drop_resident() const noexcept;

 private:
  MappedFile() = default;

  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  bool mapped_ = false;  // and to be unmapped
};

}  // namespace nanochat
