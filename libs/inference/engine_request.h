#pragma once
// What goes into the engine and what comes out of it: see engine.h.

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

// What the tokens of one sequence call for: fed every token that was drawn, it answers with tokens to put behind it before
// the model goes on (calculator_tool.h). One per sequence, on the engine's thread.
class TokenTool {
 public:
  virtual ~TokenTool() = default;
  virtual std::vector<std::int32_t> accept(std::int32_t token) = 0;
};

using RequestId = std::uint64_t;

enum class EngineEventKind {
  kPromptLogprobs,  // once, before the first token, when asked for: `prompt`, without token 0, which has no logprob
  kToken,
  kFinish,          // of one sequence: `reason`. No token event follows for it
  kDone,            // of the request, the last event: `usage`
};

struct EngineUsage {
  std::int64_t prompt_tokens = 0;
  std::int64_t cached_tokens = 0;       // of them, found in the prefix cache
  std::int64_t completion_tokens = 0;   // of all sequences, forced tokens included, the stop token not
  double queue_seconds = 0.0;           // from submit() to its first step
  double first_token_seconds = 0.0;     // from submit() to the first token (TTFT); 0: there was none
  double total_seconds = 0.0;
};

// References are valid during the call only.
struct EngineEvent {
  struct PromptToken {
    SampledToken token;
    std::vector<SampledToken> top;
  };
  RequestId request = 0;
  EngineEventKind kind = EngineEventKind::kToken;
  std::int32_t sequence = 0;                  // [0, n)
  SampledToken token;                         // kToken; logprob 0 when forced
  std::span<const SampledToken> top;          // kToken: the top_logprobs most likely, most likely first
  bool forced = false;                        // kToken: put in by a tool, not drawn
  FinishReason reason = FinishReason::kStop;  // kFinish
  std::int32_t stop_token = -1;               // kFinish: the stop token that was drawn, -1: ended otherwise
  std::string error;                          // kFinish and kDone with kError: one line
  std::exception_ptr exception;               // what `error` tells of
  std::span<const PromptToken> prompt;        // kPromptLogprobs: of tokens 1, 2, ... of the prompt
  EngineUsage usage;                          // every kind; whole at kDone
};

// Called on the engine's thread: must not block, throw, or call the engine's invalidate(), drain() or stop(). Returning
// false at a token ends its sequence there with kStop (a stop string was found); at other events it means nothing.
using EngineCallback = std::function<bool(const EngineEvent&)>;

struct EngineRequest {
  std::vector<std::int32_t> prompt;       // ids, BOS included by the caller
  SamplingOptions sampling;               // penalties, logit bias and seed included
  std::optional<std::int64_t> max_tokens; // nullopt: what the context leaves; cut to that otherwise. 0: prompt only
  std::int64_t min_tokens = 0;            // stop tokens are not drawn before
  bool ignore_eos = false;                // stop tokens are tokens like others
  std::vector<std::int32_t> stop_tokens;
  std::int64_t n = 1;                     // sequences from the prompt
  std::uint64_t first_stream = 0;         // sequence i draws from stream first_stream + i of the seed (uniform_at())
  bool logprobs = true;                   // of the tokens drawn; false: 0, which saves a pass over the vocabulary
  std::int64_t top_logprobs = 0;          // alternatives in each kToken, and in each of the prompt
  bool prompt_logprobs = false;           // of every token of the prompt but the first; passes by the prefix cache
  bool tools = false;
  std::unique_ptr<TokenConstraint> constraint;  // cloned for n > 1; not together with tools
  EngineCallback on_event;
};

}  // namespace nanochat
