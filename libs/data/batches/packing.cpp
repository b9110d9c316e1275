#include "data/batches/packing.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <set>
#include <utility>

#include "core/random.h"

namespace nanochat {

void DocumentWindow::add(std::span<const std::int32_t> document) {
  tokens.insert(tokens.end(), document.begin(), document.end());
  ends.push_back(tokens.size());
}

PackedWindow::PackedWindow(DocumentWindow window, std::int64_t sequence_len, std::int32_t bos_id)
    : window_(std::move(window)), row_tokens_(static_cast<std::size_t>(sequence_len) + 1), bos_id_(bos_id) {
  // (tokens left, end in window_.tokens): ordered by length, and among equals by place, so that ties are settled. An
  // end can occur twice, where a document without tokens follows.
  std::multiset<std::pair<std::size_t, std::size_t>> waiting;
  std::size_t begin = 0;
  for (const std::size_t end : window_.ends) {
    waiting.emplace(end - begin, end);
    begin = end;
  }
  while (!waiting.empty()) {
    std::size_t room = row_tokens_;
    while (room > 0 && !waiting.empty()) {
      const std::size_t longest = room - 1;  // beside its BOS
      auto best = waiting.upper_bound({longest, std::numeric_limits<std::size_t>::max()});
      if (best != waiting.begin()) {
        --best;
        pieces_.push_back({best->second - best->first, best->first});
        room -= best->first + 1;
        waiting.erase(best);
      } else {
        const auto [left, end] = *waiting.rbegin();
        pieces_.push_back({end - left, longest});
        if (longest > 0) {
          waiting.erase(std::prev(waiting.end()));
          waiting.emplace(left - longest, end);
        }
        room = 0;
      }
    }
    row_ends_.push_back(pieces_.size());
  }
  order_.resize(row_ends_.size());
  std::iota(order_.begin(), order_.end(), std::size_t{0});
}

void PackedWindow::shuffle(Rng& rng) { rng.shuffle(order_); }

void PackedWindow::copy_row(std::size_t index, std::int32_t* inputs, std::int32_t* targets) const {
  const std::size_t row = order_[index];
  const std::size_t sequence_len = row_tokens_ - 1;
  std::size_t filled = 0;
  // Token `filled` of the row is the input at that place and the target one place earlier.
  const auto put = [&](std::int32_t token) {
    if (filled < sequence_len) inputs[filled] = token;
    if (filled > 0) targets[filled - 1] = token;
    ++filled;
  };
  for (std::size_t i = row == 0 ? 0 : row_ends_[row - 1]; i < row_ends_[row]; ++i) {
    put(bos_id_);
    const auto first = window_.tokens.begin() + static_cast<std::ptrdiff_t>(pieces_[i].begin);
    std::for_each(first, first + static_cast<std::ptrdiff_t>(pieces_[i].length), put);
  }
  if (filled < row_tokens_) put(bos_id_);
  std::fill(inputs + std::min(filled, sequence_len), inputs + sequence_len, bos_id_);
  std::fill(targets + filled - 1, targets + sequence_len, -1);
}

std::size_t longest_that_fits(const std::vector<std::size_t>& lengths, std::size_t room) {
  std::size_t best = lengths.size(), longest = 0;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    if (lengths[i] > room || lengths[i] <= longest) continue;
    best = i;
    longest = lengths[i];
  }
  return best;
}

std::size_t shortest_of(const std::vector<std::size_t>& lengths) {
  return static_cast<std::size_t>(std::min_element(lengths.begin(), lengths.end()) - lengths.begin());
}

}  // namespace nanochat
