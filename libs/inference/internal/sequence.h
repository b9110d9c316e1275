#pragma once
// For the engine only: a request and its sequences, from the queue to the last event.

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "inference/engine_request.h"
#include "inference/internal/block_pool.h"
#include "inference/internal/drafts.h"
#include "inference/sampler.h"

namespace nanochat {

using EngineClock = std::chrono::steady_clock;

struct Sequence;

struct ActiveRequest {
  RequestId id = 0;
  EngineRequest spec;
  std::int64_t max_tokens = 0;                       // as in spec, limited to the context
  EngineClock::time_point submitted, first_step, first_token;
  EngineUsage usage;
  std::vector<std::unique_ptr<Sequence>> sequences;  // n of them after the prompt is processed, one before
  std::int64_t unfinished = 0;                       // of the n
  std::vector<EngineEvent::PromptToken> prompt_logprobs;
  bool started = false;                              // left the queue
  bool prompt_reported = false;                      // kPromptLogprobs was sent

  std::int64_t prompt_size() const { return static_cast<std::int64_t>(spec.prompt.size()); }
};

struct Sequence {
  ActiveRequest* request = nullptr;
  std::int32_t index = 0;
  std::vector<std::int32_t> tokens;                  // prompt and generated tokens
  std::int64_t computed = 0;                         // number of tokens whose keys and values are in blocks
  std::vector<std::int32_t> blocks;                  // block table
  std::int64_t published = 0;                        // number of blocks in the prefix cache
  BlockPool::Name name = BlockPool::kRoot;           // name of the last published block
  std::int64_t epoch = 0;                            // the prefix cache's epoch when `name` began
  Sampler sampler;
  std::unique_ptr<TokenConstraint> constraint;
  std::unique_ptr<TokenTool> tool;
  std::vector<std::uint64_t> allowed;                // scratch: the constraint's tokens and stop tokens
  NgramDrafter drafter;
  std::vector<std::int32_t> draft;                   // drafted tokens of a step whose draws have not been read
  std::vector<std::vector<std::uint64_t>> draft_allowed;  // with a constraint, if steps overlap: `allowed` after each of those
  std::int64_t draft_drawn = 0;  // number of those that were drawn
  bool finished = false;
  // Where steps overlap: tokens that were drawn and that the host has not read yet. They count as pending, computed and drawn,
  // but are not in `tokens`.
  std::int64_t in_flight = 0;
  std::int64_t last_draw = 0;  // which draw of its step the last of those was
  std::int64_t void_draws = 0;  // raised when a tool puts in tokens: draws of a lower number count for nothing

  explicit Sequence(ActiveRequest* of, std::int32_t i) : request(of), index(i), sampler(of->spec.sampling) {}
  std::int64_t size() const { return static_cast<std::int64_t>(tokens.size()); }
  std::int64_t pending() const { return size() + in_flight - computed; }  // tokens the model has not seen
  std::int64_t generated() const { return size() - request->prompt_size(); }
  std::int64_t drawn() const { return generated() + in_flight; }
  // Whether a step can take it up. With a constraint only when the host has its last token, on which it depends what may follow.
  bool ready() const {
    return in_flight == 0 || (!blocks.empty() && request->spec.constraint == nullptr && drawn() < request->max_tokens);
  }
  // Whether the prompt is through and the siblings of an n > 1 have not been made.
  bool forks() const { return request->spec.n > static_cast<std::int64_t>(request->sequences.size()); }
};

}  // namespace nanochat
