#include "inference/internal/prefix_record.h"

#include <algorithm>
#include <utility>

namespace nanochat {
namespace {

// Calls body(hash of all tokens up to the end of the block) for each full block, until it returns false.
template <class Body>
void for_each_block(std::span<const std::int32_t> prompt, std::int64_t block_size, const Body& body) {
  std::uint64_t hash = 0;
  const auto size = static_cast<std::size_t>(block_size);
  for (; prompt.size() >= size; prompt = prompt.subspan(size)) {
    for (const std::int32_t token : prompt.first(size)) {
      hash = (hash ^ static_cast<std::uint32_t>(token)) * 0x9e3779b97f4a7c15ULL;
      hash ^= hash >> 32;
    }
    if (!body(hash)) return;
  }
}

}  // namespace

PrefixRecord::PrefixRecord(std::int64_t block_size, std::int64_t blocks)
    : block_size_(block_size), blocks_(static_cast<std::size_t>(std::max<std::int64_t>(blocks, 1))) {}

std::int64_t PrefixRecord::match(std::span<const std::int32_t> prompt) const {
  std::int64_t matched = 0;
  for_each_block(prompt, block_size_, [&](std::uint64_t hash) {
    if (!recent_.contains(hash) && !older_.contains(hash)) return false;
    matched += block_size_;
    return true;
  });
  return matched;
}

void PrefixRecord::add(std::span<const std::int32_t> prompt) {
  for_each_block(prompt, block_size_, [&](std::uint64_t hash) {
    if (recent_.size() >= blocks_) older_ = std::exchange(recent_, {});
    recent_.insert(hash);
    return true;
  });
}

void PrefixRecord::clear() {
  recent_.clear();
  older_.clear();
}

}  // namespace nanochat
