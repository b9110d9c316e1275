#pragma once
// Token shards (*.tok): tokenized documents in a memory-mapped file. docs/formats/token-shards.md has the format
// byte by byte: a header of 128 bytes, the token ids of all documents, the offsets and checksums of the documents.
//
// Documents are stored without BOS. ShardReader is immutable: its const members are thread-safe.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/mapped_file.h"

namespace nanochat {

inline constexpr std::uint32_t kShardVersion = 2;  // 1 had no checksums of documents

struct ShardInfo {
  std::uint32_t version = kShardVersion;
  int bytes_per_token = 2;            // 2 (u16, vocabularies up to 65,536) or 4 (u32)
  std::uint64_t documents = 0;
  std::uint64_t tokens = 0;
  std::uint64_t text_bytes = 0;       // UTF-8 bytes of the documents
  std::uint64_t vocab_size = 0;       // every id is below this
  std::string tokenizer_fingerprint;  // SHA-256, 64 hexadecimal digits
  std::uint32_t checksum = 0;         // CRC-32 of everything after the header
};

// Writes one shard, which appears under its name only at finish(). Token ids are written at once;
// offsets and checksums (12 bytes per document) are in memory until finish(). Throws IoError, and
// DataError for an id outside [0, vocab_size) or a fingerprint that is not 64 hexadecimal digits.
class ShardWriter {
 public:
  ShardWriter(std::filesystem::path path, std::int64_t vocab_size, std::string tokenizer_fingerprint);
  ~ShardWriter();
  ShardWriter(const ShardWriter&) = delete;
  ShardWriter& operator=(const ShardWriter&) = delete;

  void add(std::span<const std::int32_t> document_tokens, std::uint64_t text_bytes);
  std::uint64_t documents() const;
  std::uint64_t tokens() const;
  ShardInfo finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Reads one shard. The constructor checks the header (with its CRC-32) and that the sizes
// in it give exactly the file's size. It reads nothing else, so a thousand shards open at
// once. Offsets and token ids are checked when documents are read, also against the
// document's CRC-32. Throws DataError with the problem. Never reads outside the file.
class ShardReader {
 public:
  explicit ShardReader(const std::filesystem::path& path);
  ShardReader(MappedFile file, std::filesystem::path name);  // of bytes at hand; messages call them `name`
  const ShardInfo& info() const { return info_; }
  std::int64_t document_length(std::uint64_t index) const;                      // tokens
  void document(std::uint64_t index, std::vector<std::int32_t>& tokens) const;  // appends
  // Reads the whole file and compares its checksum. Throws DataError.
  void verify() const;
  void drop_resident() const noexcept { file_.drop_resident(); }  // see MappedFile

 private:
  [[noreturn]] void fail(const std::string& what) const;
  void check_index(std::uint64_t index) const;

  std::filesystem::path path_;
  MappedFile file_;
  ShardInfo info_;
  const std::uint64_t* offsets_ = nullptr;    // documents + 1, in tokens
  const std::uint32_t* checksums_ = nullptr;  // of each document
  const std::byte* tokens_ = nullptr;
};

}  // namespace nanochat
