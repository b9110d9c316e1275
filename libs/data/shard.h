#pragma once
// Token shards (*.tok): tokenized documents in a memory-mapped file. The format is in docs/formats/token-shards.md.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/mapped_file.h"

namespace nanochat {

struct ShardInfo {
  std::uint32_t version = 1;
  int bytes_per_token = 2;            // 2 (u16, vocabularies up to 65,536) or 4 (u32)
  std::uint64_t documents = 0;
  std::uint64_t tokens = 0;
  std::uint64_t text_bytes = 0;       // UTF-8 bytes of the documents
  std::string tokenizer_fingerprint;  // SHA-256, hex
};

// Writes one shard; nothing is visible until finish(). Tokens are stored without BOS. Throws IoError, DataError.
class ShardWriter {
 public:
  ShardWriter(std::filesystem::path path, std::int64_t vocab_size, std::string tokenizer_fingerprint);
  ~ShardWriter();
  void add(std::span<const std::int32_t> document_tokens, std::uint64_t text_bytes);
  std::uint64_t tokens() const;
  ShardInfo finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Reads one shard. The constructor checks magic, version, sizes and offsets, and throws DataError saying what is wrong.
class ShardReader {
 public:
  explicit ShardReader(const std::filesystem::path& path);
  const ShardInfo& info() const { return info_; }
  std::int64_t document_length(std::uint64_t index) const;                              // tokens
  void document(std::uint64_t index, std::vector<std::int32_t>& tokens) const;          // appends

 private:
  MappedFile file_;
  ShardInfo info_;
  const std::uint64_t* offsets_ = nullptr;  // documents + 1
  const std::byte* tokens_ = nullptr;
};

}  // namespace nanochat
