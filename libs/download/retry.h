#pragma once
// When and how often to try again what a server or the way to it refused. Stateless but for the generator.

#include <cstdint>
#include <optional>

#include "core/random.h"

namespace nanochat {

struct RetryPolicy {
  int retries = 8;                        // after the first try, for as long as nothing is gained
  double first_delay_seconds = 1;         // the most that the first delay can be; the next can be twice that, and so on
  double max_delay_seconds = 60;
  double max_retry_after_seconds = 300;   // a server that asks for more patience is asked again after this
  // A try that brought this much begins the count anew: a long file over a bad line ends, and a server that sends a
  // byte at a time does not hold us for ever.
  std::uint64_t reset_after_bytes = std::uint64_t{1} << 20;
};

// How long to wait after `failures` (from 1 on) in a row. Full jitter: uniform from 0 to the bound, so that clients which
// failed together do not come back together (Brooker, "Exponential Backoff and Jitter", 2015). At least what the server
// asked for in Retry-After, as far as the policy follows it.
double delay_seconds(const RetryPolicy& policy, int failures, std::optional<double> retry_after, Rng& random);

// HTTP answers that may be another the next time: 408, 425, 429 and all of 5xx but those that say "never" (501, 505).
bool is_worth_retrying(long http_status);

}  // namespace nanochat
