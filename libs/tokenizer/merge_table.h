#pragma once
// The merge loop of byte pair encoding, shared by both types of tokenizer: a table from adjacent pairs of tokens to the
// token that replaces them. The lowest rank is applied first, among equal ranks the leftmost, until no pair is left.
//
// Sources: Sennrich, Haddow & Birch 2016, "Neural Machine Translation of Rare Words with Subword Units" (the
// algorithm); tiktoken's _byte_pair_merge (a scan over an array, for short pieces). Long pieces use a heap over
// a linked list, as in Kudo & Richardson's SentencePiece: one megabyte without a boundary costs O(n log n).
//
// Immutable after construction; merge() is thread-safe.

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace nanochat {

struct Merge {
  TokenId left = 0, right = 0, result = 0;
  std::uint32_t rank = 0;  // lower ranks merge first; several ways to make one token may share a rank
};

class MergeTable {
 public:
  static constexpr std::uint32_t kNoRank = std::numeric_limits<std::uint32_t>::max();

  struct Target {
    std::uint32_t rank = kNoRank;
    TokenId result = -1;
  };

  explicit MergeTable(std::size_t expected_merges = 0);

  // Of several merges of one pair, the first is used.
  void add(const Merge& merge);
  // rank is kNoRank if the pair does not merge.
  Target find(TokenId left, TokenId right) const {
    const std::uint64_t key = key_of(left, right);
    for (std::size_t slot = slot_of(key);; slot = (slot + 1) & mask_) {
      if (slots_[slot].key == key) return slots_[slot].target;
      if (slots_[slot].key == kEmpty) return {};
    }
  }
  // Merges `symbols` as far as possible and appends the result to `ids`.
  void merge(std::span<const TokenId> symbols, std::vector<TokenId>& ids) const;
  std::size_t size() const { return size_; }

 private:
  struct Slot {
    std::uint64_t key;
    Target target;
  };
  static constexpr std::uint64_t kEmpty = std::numeric_limits<std::uint64_t>::max();  // ids are never negative

  static std::uint64_t key_of(TokenId left, TokenId right) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
  }
  std::size_t slot_of(std::uint64_t key) const {
    return static_cast<std::size_t>((key ^ key >> 29) * 0x9E3779B97F4A7C15ULL >> shift_);
  }
  void resize(std::size_t slots);
  void merge_short(std::span<const TokenId> symbols, std::vector<TokenId>& ids) const;
  void merge_long(std::span<const TokenId> symbols, std::vector<TokenId>& ids) const;

  std::vector<Slot> slots_;  // open addressing, at most half full, a power of two
  std::size_t mask_ = 0;
  int shift_ = 63;
  std::size_t size_ = 0;
};

}  // namespace nanochat
