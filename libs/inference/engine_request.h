#pragma once
// Input and output of the engine; see engine.h.

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "inference/finish_reason.h"
#include "inference/sampler.h"
#include "inference/token_constraint.h"

namespace nanochat {

// A tool of one sequence: it gets every sampled token and returns tokens to append before
// the model continues (calculator_tool.h). One per sequence, on the engine's thread.
class TokenTool {
 public:
  virtual ~TokenTool() = default;
  virtual std::vector<std::int32_t> accept(std::int32_t token) = 0;
};

using RequestId = std::uint64_t;

enum class EngineEventKind {
  kPromptLogprobs,  // once, before the first token, if requested: `prompt`, without token 0, which has no logprob
  kToken,
  kFinish,          // of one sequence: `reason`. No token event of it follows
  kDone,            // of the request, the last event: `usage`
};

struct EngineUsage {
  std::int64_t prompt_tokens = 0;
  std::int64_t cached_tokens = 0;       // of these, found in the prefix cache
  std::int64_t completion_tokens = 0;   // of all sequences, including forced tokens, without the stop token
  double queue_seconds = 0.0;           // from submit() to its first step
  double first_token_seconds = 0.0;     // time to first token (TTFT) since submit(); 0: there was none
  double total_seconds = 0.0;
};

// References are valid only during the call.
struct EngineEvent {
  struct PromptToken {
    SampledToken token;
    std::vector<SampledToken> top;
  };
  RequestId request = 0;
  EngineEventKind kind = EngineEventKind::kToken;
  std::int32_t sequence = 0;                  // [0, n)
  SampledToken token;                         // kToken; logprob 0 when forced
  std::span<const SampledToken> top;          // kToken: the top_logprobs most likely tokens in order
  bool forced = false;                        // kToken: forced by a tool, not sampled
  FinishReason reason = FinishReason::kStop;  // kFinish
  std::int32_t stop_token = -1;               // kFinish: the stop token that was sampled; -1: ended otherwise
  std::string error;                          // kFinish and kDone with kError: one line
  std::exception_ptr exception;               // the exception that `error` describes
  std::span<const PromptToken> prompt;        // kPromptLogprobs: of tokens 1, 2, ... of the prompt
  EngineUsage usage;                          // every kind; complete at kDone
};

// Called on the engine's thread. Must not block, throw, or call the engine's invalidate(), drain() or stop(). If it returns
// false for a token, the sequence ends there with kStop (a stop string was found); for other events the result is ignored.
using EngineCallback = std::function<bool(const EngineEvent&)>;

struct EngineRequest {
  std::vector<std::int32_t> prompt;       // token ids; the caller includes BOS
  SamplingOptions sampling;               // including penalties, logit bias and seed
  std::optional<std::int64_t> max_tokens; // nullopt: up to the context; a larger value is reduced to that. 0: prompt only
  std::int64_t min_tokens = 0;            // stop tokens are not sampled before this
  bool ignore_eos = false;                // treat stop tokens like other tokens
  std::vector<std::int32_t> stop_tokens;
  std::int64_t n = 1;                     // number of sequences for the prompt
  std::uint64_t first_stream = 0;         // sequence i uses stream first_stream + i of the seed (uniform_at())
  bool logprobs = true;                   // logprobs of sampled tokens; false: 0, which saves a pass over the vocabulary
  std::int64_t top_logprobs = 0;          // alternatives in each kToken, and for each prompt token
  bool prompt_logprobs = false;           // for every prompt token but the first; does not use the prefix cache
  bool tools = false;
  std::unique_ptr<TokenConstraint> constraint;  // cloned for n > 1; not together with tools
  EngineCallback on_event;
};

}  // namespace nanochat
