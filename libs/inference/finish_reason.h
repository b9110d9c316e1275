#pragma once
// Reason for the end of a generated sequence.

namespace nanochat {

enum class FinishReason {
  kStop,       // a stop token, the end of a constraint, or the receiver of the tokens ended it
  kLength,     // max_tokens, or the end of the model's context
  kCancelled,
  kError,      // the engine's event has the error; generate() throws it instead
};

}  // namespace nanochat
