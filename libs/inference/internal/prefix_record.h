#pragma once
// Which prompts a replica has seen lately: how much of a new prompt its prefix cache is likely to hold. Approximate: it keeps
// hashes, and does not know what the cache has evicted. Not thread-safe.

#include <cstdint>
#include <span>
#include <unordered_set>

namespace nanochat {

class PrefixRecord {
 public:
  // For prompts in blocks of `block_size` tokens; it remembers at least the last `blocks` blocks, and at most twice as many.
  PrefixRecord(std::int64_t block_size, std::int64_t blocks);
  // Number of tokens at the start of the prompt, in full blocks, that earlier prompts began with.
  std::int64_t match(std::span<const std::int32_t> prompt) const;
  void add(std::span<const std::int32_t> prompt);
  void clear();

 private:
  std::int64_t block_size_;
  std::size_t blocks_;
  std::unordered_set<std::uint64_t> recent_, older_;  // hashes of prompts up to the end of a block
};

}  // namespace nanochat
