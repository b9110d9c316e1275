#pragma once
// A constraint on an answer, one token at a time. The sampler asks which tokens are allowed and reports
// the chosen one. Implementation: answer_constraint.h. One per sequence; not thread-safe.

#include <cstdint>
#include <memory>
#include <span>

namespace nanochat {

class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;
  // A bit for every token of the vocabulary, 64 per word, that is allowed next if `room` tokens, including this one, are
  // left for the answer: after any of them the answer can still be completed. At least one is allowed if closing_length()
  // is above 0 and at most `room`. Stop tokens are never included: see may_end(). Valid until the next call.
  virtual std::span<const std::uint64_t> allowed(std::int64_t room) = 0;
  // `token` was one of allowed().
  virtual void accept(std::int32_t token) = 0;
  // The text so far is a complete answer; if must_end(), nothing can follow.
  virtual bool may_end() const = 0;
  virtual bool must_end() const = 0;
  // Tokens of a shortest ending from here, without the stop token; 0 if may_end(). At the start: of the shortest answer.
  virtual std::int64_t closing_length() = 0;
  // A copy for another sequence that continues from here.
  virtual std::unique_ptr<TokenConstraint> clone() const = 0;
};

}  // namespace nanochat
