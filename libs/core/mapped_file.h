#pragma once
// A read-only memory map of a whole file.

#include <cstddef>
#include <filesystem>
#include <span>

namespace nanochat {

class MappedFile {
 public:
  // Throws DataError naming the path when it is missing, a folder or unreadable. An empty file maps to an empty span.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace nanochat
