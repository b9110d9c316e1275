#pragma once
// Counts the distinct pieces of text in a stream of documents, which is the input of BPE training.
//
// Documents are split by a regular expression in batches on all threads. Counts are kept in a fixed number of
// shards by hash. The result, and what is dropped when memory runs short, do not depend on the number of threads.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/pretokenizer.h"

namespace nanochat {

// A hash table from strings to counts; the bytes of the strings are in one arena. Not thread-safe.
class StringCounts {
 public:
  StringCounts();
  void add(std::string_view text, std::uint64_t hash, std::int64_t count);
  std::size_t size() const { return entries_.size(); }
  std::size_t bytes() const;  // of memory held
  // Keeps strings that occur more than `count` times.
  void drop_rare(std::int64_t count);

  struct Entry {
    std::uint64_t hash, offset;
    std::int64_t count;
    std::uint32_t length;
  };
  const std::vector<Entry>& entries() const { return entries_; }
  std::string_view text(const Entry& entry) const { return {arena_.data() + entry.offset, entry.length}; }

 private:
  void rehash(std::size_t slots);
  std::vector<Entry> entries_;
  std::vector<std::uint32_t> slots_;  // index of an entry + 1; 0: free
  std::vector<char> arena_;
};

std::uint64_t hash_bytes(std::string_view text);

// Not thread-safe; add() uses several threads itself.
class WordCounts {
 public:
  // max_bytes: approximate memory limit. If a batch exceeds it, strings that occurred once are dropped,
  // then those that occurred twice, and so on until half of it is free. dropped() counts them.
  WordCounts(const Pretokenizer& pretokenizer, std::size_t max_bytes, int threads);

  // Valid UTF-8, counted as one batch.
  void add(const std::vector<std::string>& documents);
  std::size_t dropped() const { return dropped_; }
  const std::vector<StringCounts>& shards() const { return shards_; }

 private:
  void shrink();
  const Pretokenizer& pretokenizer_;
  std::size_t max_bytes_;
  int threads_;
  std::vector<StringCounts> shards_;
  std::size_t dropped_ = 0;
};

}  // namespace nanochat
