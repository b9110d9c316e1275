#pragma once
// For the engine only: a request and its sequences, from the queue to the last event.

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "inference/engine_request.h"
#include "inference/internal/block_pool.h"
#include "inference/sampler.h"

namespace nanochat {

using EngineClock = std::chrono::steady_clock;

struct Sequence;

struct ActiveRequest {
  RequestId id = 0;
  EngineRequest spec;
  std::int64_t max_tokens = 0;                       // what spec asks for, cut to the context
  EngineClock::time_point submitted, first_step, first_token;
  EngineUsage usage;
  std::vector<std::unique_ptr<Sequence>> sequences;  // n of them once the prompt is through, one before
  std::int64_t unfinished = 0;                       // of the n
  std::vector<EngineEvent::PromptToken> prompt_logprobs;
  bool started = false;                              // left the queue
  bool prompt_reported = false;                      // kPromptLogprobs was sent

  std::int64_t prompt_size() const { return static_cast<std::int64_t>(spec.prompt.size()); }
};

struct Sequence {
  ActiveRequest* request = nullptr;
  std::int32_t index = 0;
  std::vector<std::int32_t> tokens;                  // prompt and what came after
  std::int64_t computed = 0;                         // of them, those whose keys and values are in blocks
  std::vector<std::int32_t> blocks;                  // block table
  std::int64_t published = 0;                        // blocks the prefix cache knows
  BlockPool::Name name = BlockPool::kRoot;           // of the last of those
  std::int64_t epoch = 0;                            // of the prefix cache when `name` began
  Sampler sampler;
  std::unique_ptr<TokenConstraint> constraint;
  std::unique_ptr<TokenTool> tool;
  std::vector<std::uint64_t> allowed;                // scratch: the constraint's tokens and stop tokens
  bool finished = false;

  explicit Sequence(ActiveRequest* of, std::int32_t i) : request(of), index(i), sampler(of->spec.sampling) {}
  std::int64_t size() const { return static_cast<std::int64_t>(tokens.size()); }
  std::int64_t pending() const { return size() - computed; }  // tokens the model has not seen
  std::int64_t generated() const { return size() - request->prompt_size(); }
  // Whether the prompt is through and the siblings of an n > 1 have not been made.
  bool forks() const { return request->spec.n > static_cast<std::int64_t>(request->sequences.size()); }
};

}  // namespace nanochat
