#pragma once
// For the engine only: which tokens to draft for a sequence, and how many (speculative.h).

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace nanochat {

// Most tokens that are drafted for a sequence in a step. With the one before them they fill a recorded step (decode_shapes.h).
inline constexpr std::int64_t kMostDrafted = 15;

// Expects what followed the last earlier occurrence of a sequence's last tokens, the longest one of kShortest to kLongest
// tokens. While tokens come as expected, it follows that occurrence further. It compares every token with the one it expected,
// drafted or not, and so knows at no cost how often it is right. Not thread-safe.
class NgramDrafter {
 public:
  static constexpr std::int64_t kShortest = 2, kLongest = 8;

  // Reads the tokens that were added to `tokens` since the last call. The first call takes all as given.
  void observe(std::span<const std::int32_t> tokens);
  // Whether it expects anything to follow the tokens observed last.
  bool expects() const { return length_ > 0; }
  // The tokens that it expects to follow are token(tokens, 0), token(tokens, 1), ...: what goes round goes on.
  std::int32_t token(std::span<const std::int32_t> tokens, std::int64_t i) const;
  // The probability that token i is drawn if those before it were, from what came of expectations before.
  double chance(std::int64_t i) const;

 private:
  void find(std::span<const std::int32_t> tokens);
  static std::size_t bucket(std::int64_t length);

  std::int64_t seen_ = 0;    // tokens observed
  std::int64_t next_ = 0;    // position of the token that is expected next
  std::int64_t length_ = 0;  // tokens before it that are those before the next one; 0: nothing is expected
  // Share of expected tokens that came, by `length_`: 2, 3, 4 to 7, and more. It begins a little below the shares of prose
  // (0.24, 0.34, 0.41 and 0.6): a text that does not repeat itself then costs nothing until it has shown that it does.
  std::array<double, 4> came_ = {0.1, 0.2, 0.4, 0.8};
};

// What a step costs, in units of a step with one token.
struct StepCosts {
  double row = 0.0;   // each further token
  double wait = 0.0;  // a step with drafts, because the next step waits for its tokens
};

// A sequence that takes part in a step with one token.
struct DraftCandidate {
  const NgramDrafter* drafter = nullptr;
  std::int64_t skipped = 0;  // of its expected tokens: those that are being drawn already
  std::int64_t most = 0;     // tokens that may be drafted
  std::int64_t drafted = 0;  // the result
};

// Chooses how many tokens to draft for each sequence of a step with `rows` tokens that draws `draws` of them. A token is added
// while that raises the number of tokens expected from the step in relation to its cost. At most `budget` tokens are added.
void plan_drafts(std::vector<DraftCandidate>& candidates, std::int64_t rows, std::int64_t draws, std::int64_t budget,
                 const StepCosts& costs);

}  // namespace nanochat
