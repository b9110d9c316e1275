#include "tokenizer/token_strings.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace nanochat {
namespace {

// Multiply and fold, eight bytes at a time; any good mix will do, nothing is stored on disk.
std::uint64_t hash_bytes(std::string_view bytes) {
  constexpr std::uint64_t kMultiplier = 0x9E3779B97F4A7C15ULL;
  std::uint64_t hash = bytes.size() * kMultiplier;
  const char* at = bytes.data();
  std::size_t left = bytes.size();
  const auto mix = [&](std::uint64_t word) {
    hash = (hash ^ word) * kMultiplier;
    hash ^= hash >> 32;
  };
  for (; left >= 8; at += 8, left -= 8) {
    std::uint64_t word;
    std::memcpy(&word, at, 8);
    mix(word);
  }
  std::uint64_t rest = 0;
  if (left > 0) std::memcpy(&rest, at, left);
  mix(rest);
  return hash;
}

}  // namespace

void TokenStrings::store(const std::vector<std::string>& tokens) {
  offsets_.reserve(tokens.size() + 1);
  for (const std::string& token : tokens) {
    bytes_ += token;
    offsets_.push_back(static_cast<std::uint32_t>(bytes_.size()));
    longest_ = std::max(longest_, token.size());
  }
  slots_.resize(std::bit_ceil(2 * tokens.size() + 2));
}

void TokenStrings::insert(TokenId id) {
  const std::string_view token = (*this)[id];
  const std::uint64_t hash = hash_bytes(token);
  const auto tag = static_cast<std::uint32_t>(hash >> 32);
  const std::size_t mask = slots_.size() - 1;
  std::size_t slot = hash & mask;
  for (; slots_[slot].id >= 0; slot = (slot + 1) & mask) {
    if (slots_[slot].tag == tag && (*this)[slots_[slot].id] == token) return;
  }
  slots_[slot] = {tag, id};
}

TokenId TokenStrings::find(std::string_view bytes) const {
  if (slots_.empty() || bytes.size() > longest_) return -1;
  const std::uint64_t hash = hash_bytes(bytes);
  const auto tag = static_cast<std::uint32_t>(hash >> 32);
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t slot = hash & mask; slots_[slot].id >= 0; slot = (slot + 1) & mask) {
    if (slots_[slot].tag == tag && (*this)[slots_[slot].id] == bytes) return slots_[slot].id;
  }
  return -1;
}

}  // namespace nanochat
