#pragma once
// When and how often to retry a failed request.

#include <cstdint>
#include <optional>

#include "core/random.h"

namespace nanochat {

struct RetryPolicy {
  int retries = 8;                        // number of retries without progress
  double first_delay_seconds = 1;         // upper bound of the first delay; it doubles with each retry
  double max_delay_seconds = 60;
  double max_retry_after_seconds = 300;   // upper bound for Retry-After
  // A try that received at least this many bytes resets the count, so that a large file completes over a bad connection.
  std::uint64_t reset_after_bytes = std::uint64_t{1} << 20;
};

// The delay after `failures` (at least 1) in a row. Full jitter: uniform from 0 to the bound, so that clients that failed
// together do not retry together (Brooker, "Exponential Backoff and Jitter", 2015). At least the server's Retry-After, up to
// the limit of the policy.
double delay_seconds(const RetryPolicy& policy, int failures, std::optional<double> retry_after, Rng& random);

// True for HTTP statuses that may change: 408, 425, 429, and 5xx except 501 and 505.
bool is_worth_retrying(long http_status);

}  // namespace nanochat
