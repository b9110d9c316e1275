#include "inference/internal/decode_shapes.h"

#include <algorithm>

namespace nanochat {

std::int64_t recorded_rows(std::int64_t rows) {
  const auto up_to_multiple = [rows](std::int64_t of) { return (rows + of - 1) / of * of; };
  if (rows > 256) return up_to_multiple(64);
  if (rows > 64) return up_to_multiple(32);
  if (rows > 16) return up_to_multiple(16);
  std::int64_t power = 1;
  while (power < rows) power *= 2;
  return power;
}

std::vector<std::int64_t> all_recorded_rows(std::int64_t most) {
  std::vector<std::int64_t> all;
  for (std::int64_t rows = 1; rows <= most; rows = all.back() + 1) all.push_back(recorded_rows(rows));
  return all;
}

std::int64_t recorded_positions(std::int64_t positions, std::int64_t context) {
  std::int64_t longest = 1024;
  while (longest < positions) longest *= 4;
  return std::min(longest, context);
}

}  // namespace nanochat
