#include "data/checks/contamination.h"

#include <algorithm>
#include <utility>

#include "tokenizer/word_counts.h"

namespace nanochat {
namespace {

bool is_word(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte >= 0x80 || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

}  // namespace

template <class Body>
void ContaminationCheck::for_each_gram(std::string_view text, const Body& body) const {
  constexpr std::uint64_t kMultiplier = 0x9E3779B97F4A7C15ULL;
  std::vector<std::uint64_t> ring(words_);
  std::string word;
  std::size_t count = 0;
  for (std::size_t i = 0; i <= text.size(); ++i) {
    if (i < text.size() && is_word(text[i])) {
      const char c = text[i];
      word += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
      continue;
    }
    if (word.empty()) continue;
    ring[count++ % words_] = hash_bytes(word);
    word.clear();
    if (count < words_) continue;
    std::uint64_t hash = 0;
    for (std::size_t k = 0; k < words_; ++k) hash = (hash ^ ring[(count + k) % words_]) * kMultiplier ^ hash >> 31;
    body(hash);
  }
}

bool ContaminationCheck::add_row(std::string name, std::string_view text) {
  const auto row = static_cast<std::uint32_t>(rows_.size());
  rows_.push_back({std::move(name), 0, 0, {}});
  for_each_gram(text, [&](std::uint64_t hash) {
    std::vector<std::uint32_t>& rows = grams_[hash].rows;
    if (!rows.empty() && rows.back() == row) return;
    rows.push_back(row);
    ++rows_[row].grams;
  });
  return rows_[row].grams > 0;
}

void ContaminationCheck::scan(std::string_view document, const std::string& where) {
  for_each_gram(document, [&](std::uint64_t hash) {
    const auto gram = grams_.find(hash);
    if (gram == grams_.end() || gram->second.found) return;
    gram->second.found = true;
    for (const std::uint32_t row : gram->second.rows) {
      if (rows_[row].found++ == 0) rows_[row].first = where;
    }
  });
}

std::vector<ContaminationCheck::Row> ContaminationCheck::contaminated() const {
  std::vector<Row> result;
  std::copy_if(rows_.begin(), rows_.end(), std::back_inserter(result), [](const Row& row) { return row.found > 0; });
  std::stable_sort(result.begin(), result.end(), [](const Row& a, const Row& b) { return a.share() > b.share(); });
  return result;
}

}  // namespace nanochat
