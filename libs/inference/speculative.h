#pragma once
// Speculative decoding: a step also passes drafted tokens through the model, and keeps those that it then draws. A step takes
// little longer with a few tokens more, because its time is that of reading the weights.
//
// kNgram drafts without a second model: where the last tokens of a sequence occurred before in its prompt or answer, the
// tokens that followed there are expected to follow again (prompt lookup decoding: Saxena 2023; LLMA: Yang et al. 2023).
//
// Verification is by equality. Every token is drawn from the model's own probabilities with the random number of its position,
// as it is without speculation, and a drafted token is kept if it is the one that was drawn. Answers are therefore the same,
// greedy or sampled. (Rejection sampling, Leviathan et al. 2023, keeps the probabilities, but not the answer to a seed.) They
// are the same bit for bit where the engine is batch-invariant (engine.h).

#include <optional>
#include <string_view>

namespace nanochat {

enum class Speculative { kNone, kNgram };

std::string_view speculative_name(Speculative speculative);  // "none", "ngram"
std::optional<Speculative> speculative_of_name(std::string_view name);

}  // namespace nanochat
