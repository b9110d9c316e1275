#include "tokenizer/internal/bpe_merges.h"

#include <algorithm>
#include <queue>

#include "tokenizer/word_counts.h"

namespace nanochat {
namespace {

using Symbol = std::uint32_t;

std::uint64_t key_of(Symbol left, Symbol right) { return static_cast<std::uint64_t>(left) << 32 | right; }

// One pair of neighbours. Words where it may occur, ascending, each once; a word stays listed after it lost the pair.
struct Pair {
  std::uint64_t key = 0;
  std::int64_t count = 0;
  std::vector<std::uint32_t> words;
};

// From keys to pairs. Open addressing over indices; pairs are never removed.
class PairTable {
 public:
  PairTable() : slots_(1 << 16) {}

  // Index of the pair, which is made when it is new.
  std::uint32_t index_of(std::uint64_t key) {
    std::size_t slot = slot_of(key);
    for (; slots_[slot].index != 0; slot = (slot + 1) & (slots_.size() - 1)) {
      if (slots_[slot].key == key) return slots_[slot].index - 1;
    }
    pairs_.emplace_back().key = key;
    slots_[slot] = {key, static_cast<std::uint32_t>(pairs_.size())};
    if (2 * pairs_.size() > slots_.size()) grow();
    return static_cast<std::uint32_t>(pairs_.size() - 1);
  }
  Pair& operator[](std::uint32_t index) { return pairs_[index]; }
  std::size_t size() const { return pairs_.size(); }

 private:
  struct Slot {
    std::uint64_t key = 0;
    std::uint32_t index = 0;  // of the pair + 1; 0: free
  };
  std::size_t slot_of(std::uint64_t key) const {
    return static_cast<std::size_t>((key ^ key >> 29) * 0x9E3779B97F4A7C15ULL >> 20) & (slots_.size() - 1);
  }
  void grow() {
    std::vector<Slot> old(2 * slots_.size());
    old.swap(slots_);
    for (const Slot& entry : old) {
      if (entry.index == 0) continue;
      std::size_t slot = slot_of(entry.key);
      while (slots_[slot].index != 0) slot = (slot + 1) & (slots_.size() - 1);
      slots_[slot] = entry;
    }
  }
  std::vector<Slot> slots_;
  std::vector<Pair> pairs_;
};

class MergeLearner {
 public:
  explicit MergeLearner(const WordCounts& counts) {
    for (const StringCounts& shard : counts.shards()) {
      for (const StringCounts::Entry& entry : shard.entries()) add_word(shard.text(entry), entry.count);
    }
    for (std::uint32_t index = 0; index < pairs_.size(); ++index) push(index);
  }

  // The pair to merge next, and its merge. False when none is left.
  bool merge_next(Symbol result, std::pair<TokenId, TokenId>& merged) {
    while (!heap_.empty()) {
      const Candidate top = heap_.top();
      heap_.pop();
      if (pairs_[top.pair].count != top.count) {
        push(top.pair);
        continue;
      }
      merged = {static_cast<TokenId>(top.key >> 32), static_cast<TokenId>(top.key & 0xFFFFFFFFU)};
      merge(top.pair, result);
      return true;
    }
    return false;
  }

 private:
  struct Word {
    std::uint64_t offset;  // of its symbols
    std::int64_t count;
    std::uint32_t length;  // in symbols, falling
  };
  struct Candidate {
    std::int64_t count;
    std::uint64_t key;
    std::uint32_t pair;
    bool operator<(const Candidate& other) const {  // the greatest leaves the heap first
      return count != other.count ? count < other.count : key > other.key;
    }
  };
  // A neighbour of the new token: the pair that the two form, made when it first occurs in a merge.
  struct Neighbour {
    std::uint32_t pair = 0, merge = 0;
  };

  void add_word(std::string_view text, std::int64_t count) {
    if (text.size() < 2) return;
    const auto word = static_cast<std::uint32_t>(words_.size());
    words_.push_back({symbols_.size(), count, static_cast<std::uint32_t>(text.size())});
    for (const char c : text) symbols_.push_back(static_cast<std::uint8_t>(c));
    const Symbol* symbol = symbols_.data() + words_.back().offset;
    for (std::size_t i = 0; i + 1 < text.size(); ++i) {
      occur(pairs_[pairs_.index_of(key_of(symbol[i], symbol[i + 1]))], word, count);
    }
  }

  static void occur(Pair& pair, std::uint32_t word, std::int64_t count) {
    pair.count += count;
    if (pair.words.empty() || pair.words.back() != word) pair.words.push_back(word);
  }

  void push(std::uint32_t index) {
    if (pairs_[index].count > 0) heap_.push({pairs_[index].count, pairs_[index].key, index});
  }

  void merge(std::uint32_t index, Symbol result) {
    ++merge_;
    left_of_.resize(result + 1);
    right_of_.resize(result + 1);
    made_.clear();
    const auto left = static_cast<Symbol>(pairs_[index].key >> 32);
    const auto right = static_cast<Symbol>(pairs_[index].key & 0xFFFFFFFFU);
    const std::vector<std::uint32_t> words = std::move(pairs_[index].words);
    pairs_[index].words = {};
    for (const std::uint32_t word : words) merge_in(word, left, right, result);
    pairs_[index].count = 0;
    for (const std::uint32_t made : made_) push(made);
  }

  // The pair of the new token and a neighbour on one side.
  Pair& with_neighbour(std::vector<Neighbour>& side, Symbol neighbour, std::uint64_t key) {
    Neighbour& entry = side[neighbour];
    if (entry.merge != merge_) {
      entry = {pairs_.index_of(key), merge_};
      made_.push_back(entry.pair);
    }
    return pairs_[entry.pair];
  }

  void merge_in(std::uint32_t index, Symbol left, Symbol right, Symbol result) {
    Word& word = words_[index];
    Symbol* symbol = symbols_.data() + word.offset;
    const std::uint32_t length = word.length;
    std::uint32_t out = 0;
    for (std::uint32_t i = 0; i < length;) {
      if (i + 1 >= length || symbol[i] != left || symbol[i + 1] != right) {
        symbol[out++] = symbol[i++];
        continue;
      }
      // What stood before is written already and may be the new token itself.
      if (out > 0) {
        const Symbol before = symbol[out - 1];
        lose(before, left, word.count);
        occur(with_neighbour(left_of_, before, key_of(before, result)), index, word.count);
      }
      if (i + 2 < length) {
        const Symbol after = symbol[i + 2];
        lose(right, after, word.count);
        occur(with_neighbour(right_of_, after, key_of(result, after)), index, word.count);
      }
      symbol[out++] = result;
      i += 2;
    }
    word.length = out;
  }

  void lose(Symbol left, Symbol right, std::int64_t count) { pairs_[pairs_.index_of(key_of(left, right))].count -= count; }

  std::vector<Word> words_;
  std::vector<Symbol> symbols_;
  PairTable pairs_;
  std::priority_queue<Candidate> heap_;
  std::vector<Neighbour> left_of_, right_of_;  // by symbol, valid for the merge they name
  std::vector<std::uint32_t> made_;            // pairs that the current merge made
  std::uint32_t merge_ = 0;
};

}  // namespace

std::vector<std::pair<TokenId, TokenId>> learn_merges(const WordCounts& words, std::int64_t count,
                                                      const std::function<void(std::int64_t)>& progress) {
  constexpr std::int64_t kReportEvery = 256;
  MergeLearner learner(words);
  std::vector<std::pair<TokenId, TokenId>> merges;
  std::pair<TokenId, TokenId> merged;
  while (static_cast<std::int64_t>(merges.size()) < count &&
         learner.merge_next(static_cast<Symbol>(256 + merges.size()), merged)) {
    merges.push_back(merged);
    if (progress && merges.size() % kReportEvery == 0) progress(static_cast<std::int64_t>(merges.size()));
  }
  return merges;
}

}  // namespace nanochat
