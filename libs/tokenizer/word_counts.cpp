#include "tokenizer/word_counts.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "core/thread_pool.h"

namespace nanochat {
namespace {

constexpr std::size_t kShards = 64;

std::size_t shard_of(std::uint64_t hash) { return static_cast<std::size_t>(hash >> 58); }

}  // namespace

// Eight bytes at a time, each mixed by a multiplication and a shift (the finaliser of MurmurHash3).
std::uint64_t hash_bytes(std::string_view text) {
  constexpr std::uint64_t kMultiplier = 0x9E3779B97F4A7C15ULL;
  std::uint64_t hash = text.size() * kMultiplier;
  const auto mix = [&](std::uint64_t word) {
    hash = (hash ^ word) * kMultiplier;
    hash ^= hash >> 29;
  };
  std::size_t i = 0;
  for (; i + 8 <= text.size(); i += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, text.data() + i, 8);
    mix(word);
  }
  if (i < text.size()) {
    std::uint64_t word = 0;
    std::memcpy(&word, text.data() + i, text.size() - i);
    mix(word);
  }
  hash ^= hash >> 33;
  hash *= 0xFF51AFD7ED558CCDULL;
  return hash ^ hash >> 33;
}

StringCounts::StringCounts() : slots_(64) {}

std::size_t StringCounts::bytes() const {
  return entries_.capacity() * sizeof(Entry) + slots_.size() * sizeof(std::uint32_t) + arena_.capacity();
}

void StringCounts::rehash(std::size_t slots) {
  slots_.assign(slots, 0);
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    std::size_t slot = entries_[i].hash & (slots - 1);
    while (slots_[slot] != 0) slot = (slot + 1) & (slots - 1);
    slots_[slot] = static_cast<std::uint32_t>(i + 1);
  }
}

void StringCounts::add(std::string_view text, std::uint64_t hash, std::int64_t count) {
  const std::size_t mask = slots_.size() - 1;
  std::size_t slot = hash & mask;
  for (; slots_[slot] != 0; slot = (slot + 1) & mask) {
    Entry& entry = entries_[slots_[slot] - 1];
    if (entry.hash == hash && entry.length == text.size() &&
        std::memcmp(arena_.data() + entry.offset, text.data(), text.size()) == 0) {
      entry.count += count;
      return;
    }
  }
  entries_.push_back({hash, arena_.size(), count, static_cast<std::uint32_t>(text.size())});
  arena_.insert(arena_.end(), text.begin(), text.end());
  slots_[slot] = static_cast<std::uint32_t>(entries_.size());
  if (2 * entries_.size() > slots_.size()) rehash(2 * slots_.size());
}

void StringCounts::drop_rare(std::int64_t count) {
  StringCounts kept;
  for (const Entry& entry : entries_) {
    if (entry.count > count) kept.add(text(entry), entry.hash, entry.count);
  }
  *this = std::move(kept);
}

WordCounts::WordCounts(const Pretokenizer& pretokenizer, std::size_t max_bytes, int threads)
    : pretokenizer_(pretokenizer), max_bytes_(max_bytes), threads_(threads > 0 ? threads : available_threads()),
      shards_(kShards) {}

void WordCounts::add(const std::vector<std::string>& documents) {
  // Each thread counts on its own, then each shard is summed up by one thread.
  const auto workers = static_cast<std::size_t>(threads_);
  std::vector<std::vector<StringCounts>> counts(workers);
  std::atomic<std::size_t> next = 0;
  for_each_index(workers, threads_, [&](std::size_t worker) {
    counts[worker].resize(kShards);
    for (std::size_t i = next++; i < documents.size(); i = next++) {
      const std::string_view text = documents[i];
      Pretokenizer::Position position;
      std::size_t begin = 0, end = 0;
      while (pretokenizer_.next(text, position, begin, end)) {
        if (begin == end) continue;
        const std::string_view piece = text.substr(begin, end - begin);
        const std::uint64_t hash = hash_bytes(piece);
        counts[worker][shard_of(hash)].add(piece, hash, 1);
      }
    }
  });
  for_each_index(kShards, threads_, [&](std::size_t shard) {
    for (std::size_t worker = 0; worker < workers; ++worker) {
      if (counts[worker].empty()) continue;
      StringCounts& part = counts[worker][shard];
      for (const StringCounts::Entry& entry : part.entries()) shards_[shard].add(part.text(entry), entry.hash, entry.count);
      part = StringCounts();
    }
  });
  shrink();
}

void WordCounts::shrink() {
  // By what the strings take, not by what was allocated for them, which depends on how they came.
  const auto held = [&] {
    std::size_t bytes = 0;
    for (const StringCounts& shard : shards_) {
      bytes += shard.size() * (sizeof(StringCounts::Entry) + 4 * sizeof(std::uint32_t));
      for (const StringCounts::Entry& entry : shard.entries()) bytes += entry.length;
    }
    return bytes;
  };
  if (held() <= max_bytes_) return;
  for (std::int64_t count = 1; held() > max_bytes_ / 2; ++count) {
    for (StringCounts& shard : shards_) {
      const std::size_t before = shard.size();
      shard.drop_rare(count);
      dropped_ += before - shard.size();
    }
  }
}

}  // namespace nanochat
