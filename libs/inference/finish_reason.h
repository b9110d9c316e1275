#pragma once
// Why a generated sequence ended.

namespace nanochat {

enum class FinishReason {
  kStop,       // a stop token, the end that a constraint demands, or the receiver of the tokens said so
  kLength,     // max_tokens, or the end of the model's context
  kCancelled,
  kError,      // serving engine only: the event before it says what happened
};

}  // namespace nanochat
