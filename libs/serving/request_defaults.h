#pragma once
// Values of sampling fields that a request leaves out.

#include <cstdint>

namespace nanochat {

struct RequestDefaults {
  double temperature = 1.0;
  std::int64_t top_k = 0;  // 0: no limit
  std::uint64_t seed = 0;  // Api draws a new one for each request
};

}  // namespace nanochat
