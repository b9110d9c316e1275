#pragma once
// Limits of the chat sessions that a server keeps.

#include <cstddef>

namespace nanochat {

struct SessionLimits {
  std::size_t max_sessions = 1000;                     // 0: no sessions
  std::size_t max_bytes = std::size_t{64} << 20;       // of messages and token ids. The KV cache has its own limit
  double time_to_live = 3600;                          // seconds since the last use
};

}  // namespace nanochat
