#include "download/retry.h"

#include <algorithm>
#include <cmath>

namespace nanochat {

double delay_seconds(const RetryPolicy& policy, int failures, std::optional<double> retry_after, Rng& random) {
  const double bound = policy.first_delay_seconds * std::exp2(std::clamp(failures - 1, 0, 60));
  double seconds = random.uniform() * std::min(bound, policy.max_delay_seconds);
  if (retry_after) seconds = std::max(seconds, std::min(*retry_after, policy.max_retry_after_seconds));
  return seconds;
}

bool is_worth_retrying(long http_status) {
  if (http_status == 408 || http_status == 425 || http_status == 429) return true;
  return http_status >= 500 && http_status < 600 && http_status != 501 && http_status != 505;
}

}  // namespace nanochat
