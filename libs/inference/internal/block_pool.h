#pragma once
// Owners of the blocks of a paged KV cache, and the prefix cache: full blocks are identified by
// their tokens and the block before them, and later prompts with the same prefix reuse them
// (automatic prefix caching, as in vLLM). Names are compared token by token, so a hash collision
// cannot give a prompt another prompt's cache. Bookkeeping only; the data is in paged_kv_cache.h.
//
// A block is free, held (with a count), or cached: not held, but found by its name until
// it is needed. The least recently used cached block is evicted first. Not thread-safe.

#include <cstdint>
#include <functional>
#include <list>
#include <span>
#include <unordered_map>
#include <vector>

namespace nanochat {

// Number of blocks of `block_size` positions for `tokens` tokens.
inline std::int64_t blocks_for(std::int64_t tokens, std::int64_t block_size) { return (tokens + block_size - 1) / block_size; }

class BlockPool {
 public:
  using Name = std::uint64_t;         // of a full block and all blocks before it; never reused
  static constexpr Name kRoot = 0;    // before the first block
  static constexpr std::int32_t kNone = -1;

  BlockPool(std::int64_t blocks, std::int64_t block_size, bool prefix_cache);

  std::int32_t allocate();                // held once; kNone if every block is held
  void hold(std::int32_t block);          // one more holder
  void release(std::int32_t block);       // release a sequence's last block first: the front of a prompt is reused most

  // Holds the longest run of blocks with these tokens from the start, at most `most` blocks.
  struct Prefix {
    std::vector<std::int32_t> blocks;
    Name name = kRoot;                    // of the last block
  };
  Prefix match(std::span<const std::int32_t> tokens, std::int64_t most);
  // A held block is full: `tokens` are its own, `parent` is the name of the blocks
  // before it. Returns its name, which is that of an equal block if there is one.
  Name publish(std::int32_t block, Name parent, std::span<const std::int32_t> tokens);
  // Drops from the cache all blocks for which `matches` returns true, given all tokens from the start to the end of
  // the block, and all blocks after them. An empty function: all. Returns their number. Holders keep their blocks.
  std::int64_t invalidate(const std::function<bool(std::span<const std::int32_t>)>& matches);
  // Drops from the cache the blocks on the path of these tokens from its end back to the first block that is held or that
  // another block follows.
  void release_prefix(std::span<const std::int32_t> tokens);

  std::int64_t total() const { return static_cast<std::int64_t>(entries_.size()); }
  std::int64_t cached() const { return static_cast<std::int64_t>(unused_.size()); }
  std::int64_t available() const { return static_cast<std::int64_t>(free_.size()) + cached(); }
  std::int64_t used() const { return total() - available(); }
  std::int64_t holders(std::int32_t block) const { return entries_[static_cast<std::size_t>(block)].holders; }

 private:
  struct Key {
    Name parent;
    std::vector<std::int32_t> tokens;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    std::size_t operator()(const Key& key) const;
  };
  struct Entry {
    std::int64_t holders = 0;
    Name name = kRoot;                    // kRoot: not published
    const Key* key = nullptr;             // in names_
    std::list<std::int32_t>::iterator place;  // in unused_, when published and not held
  };

  Entry& entry(std::int32_t block) { return entries_[static_cast<std::size_t>(block)]; }
  void forget(std::int32_t block);        // its name

  std::int64_t block_size_;
  bool prefix_cache_;
  std::vector<Entry> entries_;
  std::vector<std::int32_t> free_;
  std::list<std::int32_t> unused_;        // cached blocks, least recently used first
  std::unordered_map<Key, std::int32_t, KeyHash> names_;
  Name next_name_ = kRoot + 1;
};

}  // namespace nanochat
