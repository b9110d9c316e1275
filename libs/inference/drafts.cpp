#include "inference/internal/drafts.h"

#include <algorithm>

namespace nanochat {
namespace {

constexpr double kLearningRate = 1.0 / 16.0;  // of the shares of tokens that came

std::size_t place(std::int64_t i) { return static_cast<std::size_t>(i); }

}  // namespace

void NgramDrafter::observe(std::span<const std::int32_t> tokens) {
  const auto size = static_cast<std::int64_t>(tokens.size());
  if (seen_ == 0) {
    seen_ = size;
    find(tokens);
  }
  for (; seen_ < size; ++seen_) {
    const bool came = length_ > 0 && tokens[place(next_)] == tokens[place(seen_)];
    if (length_ > 0) {
      double& share = came_[bucket(length_)];
      share += kLearningRate * ((came ? 1.0 : 0.0) - share);
    }
    if (came) {
      ++next_;
      ++length_;
    } else {
      find(tokens.first(place(seen_ + 1)));
    }
  }
}

void NgramDrafter::find(std::span<const std::int32_t> tokens) {
  const auto size = static_cast<std::int64_t>(tokens.size());
  length_ = 0;
  for (std::int64_t next = size - 1; next >= kShortest && length_ < kLongest; --next) {
    std::int64_t length = 0;
    while (length < kLongest && length < next && tokens[place(next - 1 - length)] == tokens[place(size - 1 - length)]) ++length;
    if (length < kShortest || length <= length_) continue;
    length_ = length;
    next_ = next;
  }
}

std::int32_t NgramDrafter::token(std::span<const std::int32_t> tokens, std::int64_t i) const {
  const auto size = static_cast<std::int64_t>(tokens.size());
  return tokens[place(next_ + i % (size - next_))];
}

double NgramDrafter::chance(std::int64_t i) const { return came_[bucket(length_ + i)]; }

std::size_t NgramDrafter::bucket(std::int64_t length) { return length < 4 ? place(length - kShortest) : length < 8 ? 2 : 3; }

void plan_drafts(std::vector<DraftCandidate>& candidates, std::int64_t rows, std::int64_t draws, std::int64_t budget,
                 const StepCosts& costs) {
  const double plain_cost = 1.0 + costs.row * static_cast<double>(rows - 1), plain_tokens = static_cast<double>(draws);
  double cost = plain_cost + costs.wait, tokens = plain_tokens;
  std::vector<double> chances;  // that all tokens drafted so far are drawn
  for (DraftCandidate& candidate : candidates) {
    candidate.drafted = 0;
    double chance = 1.0;
    for (std::int64_t i = 0; i < candidate.skipped; ++i) chance *= candidate.drafter->chance(i);
    chances.push_back(chance);
  }
  for (bool added = true; added;) {
    added = false;
    for (std::size_t i = 0; i < candidates.size() && budget > 0; ++i) {
      DraftCandidate& candidate = candidates[i];
      if (candidate.drafted >= candidate.most) continue;
      const double chance = chances[i] * candidate.drafter->chance(candidate.skipped + candidate.drafted);
      if (chance * cost <= costs.row * tokens) {
        candidate.most = candidate.drafted;
        continue;
      }
      chances[i] = chance;
      tokens += chance;
      cost += costs.row;
      ++candidate.drafted;
      --budget;
      added = true;
    }
  }
  if (tokens * plain_cost > plain_tokens * cost) return;
  for (DraftCandidate& candidate : candidates) candidate.drafted = 0;
}

}  // namespace nanochat
