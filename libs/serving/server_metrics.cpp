#include "serving/internal/server_metrics.h"

#include <algorithm>

#include <spdlog/fmt/fmt.h>

namespace nanochat {
namespace {

template <class T>
std::string series(const char* name, const char* type, const char* help, T value) {
  return fmt::format("# HELP {0} {1}\n# TYPE {0} {2}\n{0} {3}\n", name, help, type, value);
}

std::string engine_text(const EngineStats& engine) {
  std::string text;
  text += series("nanochat_requests_running", "gauge", "Sequences that hold blocks of the key-value cache.", engine.running);
  text += series("nanochat_requests_queued", "gauge", "Requests that wait in the queue.", engine.queued);
  text += series("nanochat_queued_tokens", "gauge", "Tokens in the prompts of waiting requests.", engine.queued_tokens);
  text += series("nanochat_kv_blocks_used", "gauge", "Blocks of the key-value cache in use.", engine.kv_blocks_used);
  text += series("nanochat_kv_blocks_cached", "gauge", "Blocks that only the prefix cache holds.", engine.kv_blocks_cached);
  text += series("nanochat_kv_blocks_total", "gauge", "Blocks of the key-value cache.", engine.kv_blocks_total);
  text += series("nanochat_prefix_cache_hits_total", "counter", "Full blocks of prompts found in the prefix cache.",
                 engine.cache_hits);
  text += series("nanochat_prefix_cache_misses_total", "counter", "Full blocks of prompts that were not in the prefix cache.",
                 engine.cache_misses);
  text += series("nanochat_prompt_tokens_total", "counter", "Tokens in prompts.", engine.prompt_tokens);
  text += series("nanochat_cached_tokens_total", "counter", "Tokens in prompts that were found in the prefix cache.",
                 engine.cached_tokens);
  text += series("nanochat_completion_tokens_total", "counter", "Tokens generated.", engine.completion_tokens);
  text += series("nanochat_drafted_tokens_total", "counter", "Tokens drafted by speculative decoding.", engine.drafted_tokens);
  text += series("nanochat_accepted_tokens_total", "counter", "Drafted tokens that were part of the answer.",
                 engine.accepted_tokens);
  text += series("nanochat_preemptions_total", "counter", "Sequences preempted because no block was free.", engine.preemptions);
  text += series("nanochat_engine_requests_total", "counter", "Requests sent to the engine.", engine.requests);
  text += series("nanochat_engine_requests_cancelled_total", "counter", "Requests cancelled because the client disconnected.",
                 engine.cancelled);
  text += series("nanochat_engine_requests_failed_total", "counter", "Requests that ended with an error.", engine.failed);
  text += series("nanochat_engine_requests_refused_total", "counter", "Requests refused because the queue was full.",
                 engine.refused);
  text += series("nanochat_engine_steps_total", "counter", "Passes through the model.", engine.steps);
  return text;
}

}  // namespace

void Histogram::add(double seconds) {
  const auto bound = std::lower_bound(kBounds.begin(), kBounds.end(), seconds);
  ++counts_[static_cast<std::size_t>(bound - kBounds.begin())];
  sum_ += seconds;
}

std::string Histogram::text(const std::string& name, const std::string& help) const {
  std::string out = fmt::format("# HELP {0} {1}\n# TYPE {0} histogram\n", name, help);
  std::uint64_t below = 0;
  for (std::size_t i = 0; i < kBounds.size(); ++i) {
    below += counts_[i];
    out += fmt::format("{}_bucket{{le=\"{}\"}} {}\n", name, kBounds[i], below);
  }
  below += counts_.back();
  return out + fmt::format("{0}_bucket{{le=\"+Inf\"}} {1}\n{0}_sum {2}\n{0}_count {1}\n", name, below, sum_);
}

void ServerMetrics::begin_request() {
  const std::lock_guard lock(mutex_);
  ++begun_;
}

void ServerMetrics::end_request(const std::string& path, int status) {
  const std::lock_guard lock(mutex_);
  ++ended_;
  ++requests_[{path, status}];
}

void ServerMetrics::first_token(double seconds) {
  const std::lock_guard lock(mutex_);
  first_token_.add(seconds);
}

void ServerMetrics::inter_token(double seconds) {
  const std::lock_guard lock(mutex_);
  inter_token_.add(seconds);
}

std::uint64_t ServerMetrics::total_requests() const {
  const std::lock_guard lock(mutex_);
  return begun_;
}

std::uint64_t ServerMetrics::active_requests() const {
  const std::lock_guard lock(mutex_);
  return begun_ - ended_;
}

std::string ServerMetrics::prometheus(const EngineStats* engine, const ModelCounts& models,
                                      const AnswerCacheStats& cache) const {
  std::string text;
  {
    const std::lock_guard lock(mutex_);
    text +=
        "# HELP nanochat_http_requests_total Requests answered. Status 499: the client disconnected.\n"
        "# TYPE nanochat_http_requests_total counter\n";
    for (const auto& [key, count] : requests_) {
      text += fmt::format("nanochat_http_requests_total{{path=\"{}\",status=\"{}\"}} {}\n", key.first, key.second, count);
    }
    text += series("nanochat_http_requests_active", "gauge", "Requests being answered.", begun_ - ended_);
    text += first_token_.text("nanochat_time_to_first_token_seconds", "Time from the arrival of a request to its first token.");
    text += inter_token_.text("nanochat_inter_token_latency_seconds", "Time between two tokens of an answer.");
  }
  text += series("nanochat_models", "gauge", "Models that the server serves.", models.models);
  text += series("nanochat_models_loaded", "gauge", "Models in memory.", models.loaded);
  text += series("nanochat_models_bytes", "gauge", "Weights and key-value caches of the models in memory, if limited.",
                 models.bytes);
  text += series("nanochat_model_loads_total", "counter", "Models loaded, including newer checkpoints.", models.loads);
  text += series("nanochat_model_unloads_total", "counter", "Models unloaded to make room for others.", models.unloads);
  text += series("nanochat_response_cache_hits_total", "counter", "Answers sent from the response cache.", cache.hits);
  text += series("nanochat_response_cache_misses_total", "counter", "Answers that were not in the response cache.",
                 cache.misses);
  text += series("nanochat_response_cache_answers", "gauge", "Answers in the response cache.", cache.answers);
  text += series("nanochat_response_cache_bytes", "gauge", "Bytes of the answers in the response cache.", cache.bytes);
  if (engine != nullptr) text += engine_text(*engine);
  return text;
}

}  // namespace nanochat
