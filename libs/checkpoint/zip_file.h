#pragma once
// Zip archives with uncompressed entries, as torch.save writes
// them. Source: PKWARE, APPNOTE.TXT 6.3.10 (zip64 included).

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/mapped_file.h"

namespace nanochat {

class AtomicFile;

// A mapped archive, immutable and thread-safe. The constructor checks the directory at the end of the file and
// that each entry is uncompressed and in its place. Nothing is allocated by a size that the archive only claims.
class ZipFile {
 public:
  // Throws CheckpointError with the file and the entry.
  explicit ZipFile(const std::filesystem::path& path);
  ZipFile(MappedFile file, std::filesystem::path name);  // of bytes in memory; messages call them `name`

  struct Entry {
    std::size_t begin = 0, end = 0;  // byte range in the file
    std::uint32_t crc32 = 0;
  };
  const std::filesystem::path& path() const { return path_; }
  std::span<const std::byte> bytes() const { return file_.bytes(); }
  std::size_t size() const { return file_.bytes().size(); }
  const std::map<std::string, Entry>& entries() const { return entries_; }
  // The bytes of an entry, valid as long as the object, after a check of their
  // CRC-32. Throws CheckpointError if there is no such entry or if they differ.
  std::span<const std::byte> read(const std::string& name) const;

 private:
  struct Directory {
    std::uint64_t entries, size, offset;
  };
  [[noreturn]] void fail(const std::string& what) const;
  std::uint64_t number(std::uint64_t at, std::size_t bytes) const;
  Directory find_directory() const;
  std::size_t read_entry(std::size_t at, const Directory& directory);

  std::filesystem::path path_;
  MappedFile file_;
  std::map<std::string, Entry> entries_;
};

// Writes such an archive. Every entry has zip64 fields, so large files need no separate code.
class ZipWriter {
 public:
  // The caller commits the file after finish().
  explicit ZipWriter(AtomicFile& file) : file_(file) {}
  // The bytes begin at a multiple of 64 of the file, as in torch.save. Throws IoError.
  void add(std::string_view name, const void* data, std::size_t bytes);
  void add(std::string_view name, std::string_view text) { add(name, text.data(), text.size()); }
  void finish();

 private:
  AtomicFile& file_;
  std::string directory_;
  std::uint64_t entries_ = 0;
};

}  // namespace nanochat
