#pragma once
// Counters of the server, in the text format of Prometheus. Thread-safe.

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <utility>

#include "inference/inference_backend.h"
#include "serving/internal/answer_cache.h"

namespace nanochat {

// Counts values in the ranges between fixed bounds. Not thread-safe.
class Histogram {
 public:
  static constexpr std::array<double, 14> kBounds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                                     0.25,  0.5,    1.0,   2.5,  5.0,   10.0, 30.0};  // seconds
  void add(double seconds);
  std::string text(const std::string& name, const std::string& help) const;

 private:
  std::array<std::uint64_t, kBounds.size() + 1> counts_{};
  double sum_ = 0.0;
};

// The models of a server.
struct ModelCounts {
  std::size_t models = 0, loaded = 0;
  std::uint64_t loads = 0, unloads = 0;  // since the start
  std::int64_t bytes = 0;                // of weights and KV caches of those that are loaded, where they are known
};

class ServerMetrics {
 public:
  void begin_request();                                  // the request is active until end_request()
  void end_request(const std::string& path, int status);  // path: of the route, or "other"
  void first_token(double seconds);  // since the arrival of the request
  void inter_token(double seconds);  // since the token before

  std::uint64_t total_requests() const;
  std::uint64_t active_requests() const;
  // All metrics as text. `engine` is null while no model is loaded.
  std::string prometheus(const EngineStats* engine, const ModelCounts& models, const AnswerCacheStats& cache) const;

 private:
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, int>, std::uint64_t> requests_;
  std::uint64_t begun_ = 0, ended_ = 0;
  Histogram first_token_, inter_token_;
};

}  // namespace nanochat
