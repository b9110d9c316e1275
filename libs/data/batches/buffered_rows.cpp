#include "data/batches/buffered_rows.h"

#include <utility>

#include "data/batches/packing.h"

namespace nanochat {

BufferedRows::BufferedRows(const Options& options, std::function<std::size_t(std::size_t)> length,
                           std::function<std::vector<std::size_t>(std::int64_t)> order, const BufferedRowsPosition& position)
    : options_(options), length_(std::move(length)), order_of_(std::move(order)), position_(position),
      order_(order_of_(position.epoch)) {
  for (const std::size_t conversation : position_.waiting) lengths_.push_back(length_(conversation));
}

void BufferedRows::refill() {
  while (position_.waiting.size() < options_.buffer) {
    if (position_.place == order_.size()) {
      if (!options_.loop) return;
      position_.epoch += 1;
      position_.place = 0;
      order_ = order_of_(position_.epoch);
    }
    const std::size_t conversation = order_[position_.place++];
    position_.waiting.push_back(conversation);
    lengths_.push_back(length_(conversation));
  }
}

bool BufferedRows::next(std::vector<std::size_t>& row) {
  row.clear();
  for (std::size_t room = options_.room; room > 0;) {
    refill();
    const std::size_t chosen = longest_that_fits(lengths_, room);
    if (chosen == lengths_.size()) break;
    row.push_back(position_.waiting[chosen]);
    room -= lengths_[chosen];
    const auto at = static_cast<std::ptrdiff_t>(chosen);
    position_.waiting.erase(position_.waiting.begin() + at);
    lengths_.erase(lengths_.begin() + at);
  }
  return !row.empty();
}

}  // namespace nanochat
