#pragma once
// Several engines with the same model behind one queue, usually one per GPU (data parallelism). A request waits in the queue
// until a replica has room for it. Then it goes to the replica that has most of its prompt in the prefix cache and few other
// sequences (cache-aware routing, as in SGLang: Zheng et al. 2024). Answers do not depend on the choice.
//
//   std::vector<std::unique_ptr<Engine>> engines;  // one for each device, with Replicas::engine_options(options)
//   Replicas replicas(std::move(engines), options);
//   replicas.start();
//   replicas.submit(std::move(request));

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "inference/engine.h"

namespace nanochat {

class Replicas final : public ServingEngine {
 public:
  // At least one engine, none of them started. max_queued and max_queued_tokens hold for the common queue. Throws ConfigError
  // if the models differ in context or vocabulary.
  Replicas(std::vector<std::unique_ptr<Engine>> engines, const EngineOptions& options);
  ~Replicas() override;  // stop()
  Replicas(const Replicas&) = delete;
  Replicas& operator=(const Replicas&) = delete;

  // What each engine is made with. Its own queue refuses nothing that the common queue hands over.
  static EngineOptions engine_options(EngineOptions options);

  void start() override;
  bool drain(std::optional<std::chrono::milliseconds> limit = std::nullopt) override;
  void stop() override;

  Submission submit(EngineRequest request) override;
  void cancel(RequestId id) override;
  void invalidate(std::function<bool(std::span<const std::int32_t>)> matches, std::function<void(std::int64_t)> done) override;
  void release_prefix(std::vector<std::int32_t> tokens) override;
  EngineStats stats() const override;  // sums, and EngineStats::replicas
  bool ready() const override;  // all of them
  std::int64_t context_length() const override;
  std::int64_t vocab_size() const override;
  std::int64_t max_choices() const override;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nanochat
