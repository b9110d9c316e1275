#pragma once
// Limits of the requests that generate text. 0 means no limit.

#include <cstdint>

namespace nanochat {

struct AnswerLimits {
  std::int64_t max_concurrent = 0;  // requests being answered, including those that wait for the engine; beyond: status 429
  double request_timeout = 0.0;     // seconds from the arrival of a request to the end of its answer; beyond: status 504
  // Of each API key; without keys, of all clients together. Beyond them: status 429.
  std::int64_t key_max_concurrent = 0;
  std::int64_t key_requests_per_minute = 0;
  std::int64_t key_tokens_per_minute = 0;  // tokens of prompts and answers
};

}  // namespace nanochat
