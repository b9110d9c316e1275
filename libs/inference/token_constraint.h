#pragma once
// What an answer must look like, one token at a time: the sampler asks which tokens may come next and says which came.
// Implementation for JSON: json_constraint.h. One per sequence; not thread-safe.

#include <cstdint>
#include <memory>
#include <span>

namespace nanochat {

class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;
  // A bit for every token of the vocabulary, 64 a word, that may come next when `room` tokens, that one included, are
  // left to the answer: after any of them the answer can still be completed. At least one while closing_length() is
  // above 0 and at most `room`. Stop tokens are never among them: may_end() allows those. Valid until the next call.
  virtual std::span<const std::uint64_t> allowed(std::int64_t room) = 0;
  // `token` was one of allowed().
  virtual void accept(std::int32_t token) = 0;
  // What came so far is a whole answer; when must_end(), nothing can follow it.
  virtual bool may_end() const = 0;
  virtual bool must_end() const = 0;
  // Tokens of a shortest ending from here, stop token not counted; 0 when may_end(). At the start: of the shortest answer.
  virtual std::int64_t closing_length() = 0;
  // Another sequence that continues from here.
  virtual std::unique_ptr<TokenConstraint> clone() const = 0;
};

}  // namespace nanochat
