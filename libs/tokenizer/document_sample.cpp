#include "tokenizer/document_sample.h"

#include <algorithm>
#include <utility>

namespace nanochat {

void DocumentSample::offer(std::string document) {
  const std::uint64_t key = rng_.next();
  const std::uint64_t index = offered_++;
  if (key >= bound_) return;
  bytes_ += static_cast<std::int64_t>(document.size());
  entries_.push_back({key, index, std::move(document)});
  std::push_heap(entries_.begin(), entries_.end());
  // One document stays even if it alone is larger than the budget.
  while (bytes_ > max_bytes_ && entries_.size() > 1) {
    std::pop_heap(entries_.begin(), entries_.end());
    bound_ = entries_.back().key;  // what comes later with a larger key would leave again
    bytes_ -= static_cast<std::int64_t>(entries_.back().document.size());
    entries_.pop_back();
  }
}

std::vector<std::string> DocumentSample::take() {
  std::sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) { return a.index < b.index; });
  std::vector<std::string> documents;
  documents.reserve(entries_.size());
  for (Entry& entry : entries_) documents.push_back(std::move(entry.document));
  entries_.clear();
  bytes_ = 0;
  return documents;
}

}  // namespace nanochat
