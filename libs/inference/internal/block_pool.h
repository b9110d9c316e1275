#pragma once
// Who holds which block of a paged KV cache, and the prefix cache: full blocks, named by their tokens and by the block
// before them, that later prompts which begin alike take over (automatic prefix caching, as in vLLM; names are compared
// token by token, so that a collision of hashes cannot give a prompt another's cache). Books only: the numbers lie in
// paged_kv_cache.h.
//
// A block is free, held (counted), or cached: held by nobody, but found by its name until it is needed. Of cached blocks
// the least recently used goes first. Not thread-safe.

#include <cstdint>
#include <functional>
#include <list>
#include <span>
#include <unordered_map>
#include <vector>

namespace nanochat {

// Blocks of `block_size` positions that hold `tokens` of them.
inline std::int64_t blocks_for(std::int64_t tokens, std::int64_t block_size) { return (tokens + block_size - 1) / block_size; }

class BlockPool {
 public:
  using Name = std::uint64_t;         // of a full block and all before it; never given twice
  static constexpr Name kRoot = 0;    // before the first block
  static constexpr std::int32_t kNone = -1;

  BlockPool(std::int64_t blocks, std::int64_t block_size, bool prefix_cache);

  std::int32_t allocate();                // held once; kNone when every block is held
  void hold(std::int32_t block);          // once more
  void release(std::int32_t block);       // release a sequence's blocks last first: the front of a prompt is wanted longest

  // Holds the longest run of blocks, `most` at most, that has these tokens from the start.
  struct Prefix {
    std::vector<std::int32_t> blocks;
    Name name = kRoot;                    // of the last
  };
  Prefix match(std::span<const std::int32_t> tokens, std::int64_t most);
  // A held block is full: `tokens` are its own, `parent` names what stands before. Returns its name, which is that of
  // an equal block if there is one.
  Name publish(std::int32_t block, Name parent, std::span<const std::int32_t> tokens);
  // Forgets blocks of which `matches` says so, given all tokens from the start to the end of the block, and all that
  // follow them. An empty function: all. Returns how many; those that are held stay with their holders.
  std::int64_t invalidate(const std::function<bool(std::span<const std::int32_t>)>& matches);

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
  std::list<std::int32_t> unused_;        // cached, least recently used first
  std::unordered_map<Key, std::int32_t, KeyHash> names_;
  Name next_name_ = kRoot + 1;
};

}  // namespace nanochat
