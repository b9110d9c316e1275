#pragma once
// Why a generated sequence ended.

namespace nanochat {

enum class FinishReason {
  kStop,       // a stop token, the end that a constraint demands, or the receiver of the tokens said so
  kLength,     // max_tokens, or the end of the model's context
  kCancelled,
  kError,      // the engine's event says what happened; generate() throws it instead
};

}  // namespace nanochat
