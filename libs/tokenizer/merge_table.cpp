#include "tokenizer/merge_table.h"

#include <array>
#include <bit>
#include <queue>

namespace nanochat {
namespace {

// Above this many symbols the scan for the lowest rank, which is quadratic, loses to the heap.
constexpr std::size_t kShortPiece = 100;

}  // namespace

MergeTable::MergeTable(std::size_t expected_merges) { resize(std::bit_ceil(2 * expected_merges + 2)); }

void MergeTable::resize(std::size_t slots) {
  std::vector<Slot> old = std::move(slots_);
  slots_.assign(slots, Slot{kEmpty, {}});
  mask_ = slots - 1;
  shift_ = 64 - std::countr_zero(slots);
  size_ = 0;
  for (const Slot& slot : old) {
    if (slot.key == kEmpty) continue;
    std::size_t at = slot_of(slot.key);
    while (slots_[at].key != kEmpty) at = (at + 1) & mask_;
    slots_[at] = slot;
    ++size_;
  }
}

void MergeTable::add(const Merge& merge) {
  if (2 * (size_ + 1) > slots_.size()) resize(2 * slots_.size());
  const std::uint64_t key = key_of(merge.left, merge.right);
  std::size_t slot = slot_of(key);
  while (slots_[slot].key != kEmpty && slots_[slot].key != key) slot = (slot + 1) & mask_;
  if (slots_[slot].key == key) return;
  slots_[slot] = Slot{key, {merge.rank, merge.result}};
  ++size_;
}

void MergeTable::merge(std::span<const TokenId> symbols, std::vector<TokenId>& ids) const {
  if (symbols.size() < 2) {
    ids.insert(ids.end(), symbols.begin(), symbols.end());
  } else if (symbols.size() <= kShortPiece) {
    merge_short(symbols, ids);
  } else {
    merge_long(symbols, ids);
  }
}

void MergeTable::merge_short(std::span<const TokenId> symbols, std::vector<TokenId>& ids) const {
  std::array<TokenId, kShortPiece> token;
  std::array<std::uint32_t, kShortPiece> rank;  // of merging token[i] with token[i + 1]
  std::array<TokenId, kShortPiece> result;
  std::size_t count = symbols.size();
  const auto look_up = [&](std::size_t i) {
    const Target target = find(token[i], token[i + 1]);
    rank[i] = target.rank;
    result[i] = target.result;
  };
  std::copy(symbols.begin(), symbols.end(), token.begin());
  for (std::size_t i = 0; i + 1 < count; ++i) look_up(i);
  while (count > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < count; ++i) {
      if (rank[i] < rank[best]) best = i;
    }
    if (rank[best] == kNoRank) break;
    token[best] = result[best];
    --count;
    for (std::size_t i = best + 1; i < count; ++i) token[i] = token[i + 1];
    for (std::size_t i = best + 1; i + 1 < count; ++i) {
      rank[i] = rank[i + 1];
      result[i] = result[i + 1];
    }
    if (best + 1 < count) look_up(best);
    if (best > 0) look_up(best - 1);
  }
  ids.insert(ids.end(), token.begin(), token.begin() + static_cast<std::ptrdiff_t>(count));
}

void MergeTable::merge_long(std::span<const TokenId> symbols, std::vector<TokenId>& ids) const {
  struct Symbol {
    TokenId id;
    std::uint32_t rank;  // of merging with `next`; a heap entry of any other rank is out of date
    TokenId result;
    std::uint32_t previous, next;
  };
  struct Candidate {
    std::uint32_t rank, position;
    bool operator<(const Candidate& other) const {  // the top of the heap: lowest rank, then leftmost
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  constexpr std::uint32_t kEnd = std::numeric_limits<std::uint32_t>::max();
  const auto count = static_cast<std::uint32_t>(symbols.size());
  std::vector<Symbol> list(count);
  std::vector<Candidate> initial;
  for (std::uint32_t i = 0; i < count; ++i) {
    const bool last = i + 1 == count;
    const Target target = last ? Target{} : find(symbols[i], symbols[i + 1]);
    list[i] = {symbols[i], target.rank, target.result, i == 0 ? kEnd : i - 1, last ? kEnd : i + 1};
    if (target.rank != kNoRank) initial.push_back({target.rank, i});
  }
  std::priority_queue<Candidate> heap(std::less<Candidate>(), std::move(initial));
  const auto look_up = [&](std::uint32_t i) {
    Symbol& symbol = list[i];
    const Target target = symbol.next == kEnd ? Target{} : find(symbol.id, list[symbol.next].id);
    symbol.rank = target.rank;
    symbol.result = target.result;
    if (target.rank != kNoRank) heap.push({target.rank, i});
  };
  while (!heap.empty()) {
    const Candidate top = heap.top();
    heap.pop();
    Symbol& left = list[top.position];
    if (left.rank != top.rank) continue;
    Symbol& right = list[left.next];
    left.id = left.result;
    left.next = right.next;
    right.rank = kNoRank;
    if (left.next != kEnd) list[left.next].previous = top.position;
    look_up(top.position);
    if (left.previous != kEnd) look_up(left.previous);
  }
  for (std::uint32_t i = 0; i != kEnd; i = list[i].next) ids.push_back(list[i].id);
}

}  // namespace nanochat
