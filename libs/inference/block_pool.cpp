#include "inference/internal/block_pool.h"

#include <c10/util/Exception.h>

#include <algorithm>

namespace nanochat {

std::size_t BlockPool::KeyHash::operator()(const Key& key) const {
  std::uint64_t hash = key.parent * 0x9e3779b97f4a7c15ULL;
  for (const std::int32_t token : key.tokens) {
    hash = (hash ^ static_cast<std::uint32_t>(token)) * 0x9e3779b97f4a7c15ULL;
    hash ^= hash >> 32;
  }
  return static_cast<std::size_t>(hash);
}

BlockPool::BlockPool(std::int64_t blocks, std::int64_t block_size, bool prefix_cache)
    : block_size_(block_size), prefix_cache_(prefix_cache), entries_(static_cast<std::size_t>(blocks)) {
  for (auto block = static_cast<std::int32_t>(blocks); block-- > 0;) free_.push_back(block);
}

void BlockPool::forget(std::int32_t block) {
  Entry& e = entry(block);
  names_.erase(names_.find(*e.key));
  e.name = kRoot;
  e.key = nullptr;
}

std::int32_t BlockPool::allocate() {
  std::int32_t block = kNone;
  if (!free_.empty()) {
    block = free_.back();
    free_.pop_back();
  } else if (!unused_.empty()) {
    block = unused_.front();
    unused_.pop_front();
    forget(block);
  } else {
    return kNone;
  }
  entry(block).holders = 1;
  return block;
}

void BlockPool::hold(std::int32_t block) {
  Entry& e = entry(block);
  if (e.holders++ > 0) return;
  TORCH_CHECK(e.name != kRoot, "block pool: block ", block, " is free");
  unused_.erase(e.place);
}

void BlockPool::release(std::int32_t block) {
  Entry& e = entry(block);
  TORCH_CHECK(e.holders > 0, "block pool: nobody holds block ", block);
  if (--e.holders > 0) return;
  if (e.name == kRoot) {
    free_.push_back(block);
  } else {
    e.place = unused_.insert(unused_.end(), block);
  }
}

BlockPool::Prefix BlockPool::match(std::span<const std::int32_t> tokens, std::int64_t most) {
  Prefix prefix;
  const auto size = static_cast<std::size_t>(block_size_);
  for (std::int64_t i = 0; i < most && tokens.size() >= size; ++i, tokens = tokens.subspan(size)) {
    const auto found = names_.find(Key{prefix.name, {tokens.begin(), tokens.begin() + block_size_}});
    if (found == names_.end()) break;
    hold(found->second);
    prefix.blocks.push_back(found->second);
    prefix.name = entry(found->second).name;
  }
  return prefix;
}

BlockPool::Name BlockPool::publish(std::int32_t block, Name parent, std::span<const std::int32_t> tokens) {
  if (!prefix_cache_) return kRoot;
  const auto [place, added] = names_.try_emplace(Key{parent, {tokens.begin(), tokens.end()}}, block);
  Entry& e = entry(place->second);
  if (added) {
    e.name = next_name_++;
    e.key = &place->first;
  }
  return e.name;
}

void BlockPool::release_prefix(std::span<const std::int32_t> tokens) {
  std::vector<std::int32_t> path;
  const auto size = static_cast<std::size_t>(block_size_);
  for (Name name = kRoot; tokens.size() >= size; tokens = tokens.subspan(size)) {
    const auto found = names_.find(Key{name, {tokens.begin(), tokens.begin() + block_size_}});
    if (found == names_.end()) break;
    path.push_back(found->second);
    name = entry(found->second).name;
  }
  if (path.empty()) return;
  std::unordered_map<Name, std::int64_t> followers;
  for (const auto& [key, block] : names_) ++followers[key.parent];
  for (; !path.empty(); path.pop_back()) {
    Entry& last = entry(path.back());
    if (last.holders > 0 || followers[last.name] > 0) return;
    --followers[last.key->parent];
    unused_.erase(last.place);
    free_.push_back(path.back());
    forget(path.back());
  }
}

std::int64_t BlockPool::invalidate(const std::function<bool(std::span<const std::int32_t>)>& matches) {
  // In the order of their names a block comes behind what it follows.
  std::vector<std::int32_t> published;
  for (const auto& [key, block] : names_) published.push_back(block);
  std::sort(published.begin(), published.end(), [&](std::int32_t a, std::int32_t b) { return entry(a).name < entry(b).name; });
  std::unordered_map<Name, std::vector<std::int32_t>> paths;  // tokens up to the end of blocks that stay
  paths[kRoot] = {};
  std::int64_t forgotten = 0;
  for (const std::int32_t block : published) {
    Entry& e = entry(block);
    const auto parent = paths.find(e.key->parent);
    bool stays = parent != paths.end() && matches;
    if (stays) {
      std::vector<std::int32_t> path = parent->second;
      path.insert(path.end(), e.key->tokens.begin(), e.key->tokens.end());
      stays = !matches(path);
      if (stays) paths[e.name] = std::move(path);
    }
    if (stays) continue;
    ++forgotten;
    if (e.holders == 0) {
      unused_.erase(e.place);
      free_.push_back(block);
    }
    forget(block);
  }
  return forgotten;
}

}  // namespace nanochat
