#include "serving/internal/server_metrics.h"

#include <gmock/gmock.h>

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(Histogram, CountsUpToEachBoundAndAllOfThem) {
  Histogram histogram;
  for (const double seconds : {0.0005, 0.001, 0.002, 29.0, 31.0})
    histogram.add(seconds);  // a bound belongs to what lies below it
  const std::string text = histogram.text("x_seconds", "What it is.");
  EXPECT_THAT(text, HasSubstr("# HELP x_seconds What it is.\n# TYPE x_seconds histogram\nx_seconds_bucket{le=\"0.001\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("x_seconds_bucket{le=\"0.0025\"} 3\n"));
  EXPECT_THAT(text,
              HasSubstr("x_seconds_bucket{le=\"10\"} 3\nx_seconds_bucket{le=\"30\"} 4\nx_seconds_bucket{le=\"+Inf\"} 5\n"));
  EXPECT_THAT(text, HasSubstr("x_seconds_sum 60.0035\nx_seconds_count 5\n"));
}

TEST(ServerMetrics, CountsRequests) {
  ServerMetrics metrics;
  metrics.begin_request();
  metrics.begin_request();
  metrics.begin_request();
  metrics.end_request("/health", 200);
  metrics.end_request("/health", 503);
  EXPECT_EQ(metrics.total_requests(), 3u);
  EXPECT_EQ(metrics.active_requests(), 1u);
  const std::string text = metrics.prometheus(nullptr, {}, {});
  EXPECT_THAT(text, HasSubstr("nanochat_http_requests_total{path=\"/health\",status=\"200\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("nanochat_http_requests_total{path=\"/health\",status=\"503\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("nanochat_http_requests_active 1\n"));
  EXPECT_THAT(text, Not(HasSubstr("nanochat_kv_blocks_used")));
}

TEST(ServerMetrics, TellOfTokensAndTheEngine) {
  ServerMetrics metrics;
  metrics.first_token(0.2);
  metrics.inter_token(0.02);
  metrics.inter_token(0.03);
  EngineStats engine;
  engine.running = 4;
  engine.completion_tokens = 12;
  engine.drafted_tokens = 9;
  engine.accepted_tokens = 7;
  const std::string text = metrics.prometheus(&engine, {.models = 3, .loaded = 2, .loads = 5, .unloads = 3, .bytes = 1000},
                                              {7, 8, 9, 10});
  EXPECT_THAT(text, HasSubstr("nanochat_time_to_first_token_seconds_sum 0.2\nnanochat_time_to_first_token_seconds_count 1\n"));
  EXPECT_THAT(text, HasSubstr("nanochat_inter_token_latency_seconds_sum 0.05\nnanochat_inter_token_latency_seconds_count 2\n"));
  EXPECT_THAT(text, HasSubstr("# TYPE nanochat_requests_running gauge\nnanochat_requests_running 4\n"));
  EXPECT_THAT(text, HasSubstr("# TYPE nanochat_completion_tokens_total counter\nnanochat_completion_tokens_total 12\n"));
  EXPECT_THAT(text, HasSubstr("# TYPE nanochat_drafted_tokens_total counter\nnanochat_drafted_tokens_total 9\n"));
  EXPECT_THAT(text, HasSubstr("# TYPE nanochat_accepted_tokens_total counter\nnanochat_accepted_tokens_total 7\n"));
  EXPECT_THAT(text, HasSubstr("\nnanochat_models 3\n"));
  EXPECT_THAT(text, HasSubstr("\nnanochat_models_loaded 2\n"));
  EXPECT_THAT(text, HasSubstr("\nnanochat_models_bytes 1000\n"));
  EXPECT_THAT(text, HasSubstr("\nnanochat_model_loads_total 5\n"));
  EXPECT_THAT(text, HasSubstr("\nnanochat_model_unloads_total 3\n"));
  EXPECT_THAT(text, HasSubstr("\nnanochat_response_cache_hits_total 7\n"));
  EXPECT_THAT(text, HasSubstr("\nnanochat_response_cache_misses_total 8\n"));
  EXPECT_THAT(text, HasSubstr("\nnanochat_response_cache_answers 9\n"));
  EXPECT_THAT(text, HasSubstr("\nnanochat_response_cache_bytes 10\n"));
}

}  // namespace
}  // namespace nanochat
