#pragma once
// For regex.cpp only: the syntax tree of a regular expression.

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "inference/regex.h"
#include "inference/utf8_ranges.h"

namespace nanochat {

enum class RegexAssertion { kBegin, kEnd, kEndOrNewline, kBoundary, kNoBoundary };

struct RegexNode {
  enum class Kind { kSet, kSequence, kAlternatives, kRepeat, kAssertion, kLookahead } kind = Kind::kSequence;
  CodeRanges ranges;                        // kSet
  std::vector<std::shared_ptr<RegexNode>> parts;
  std::int64_t least = 0;               // kRepeat
  std::optional<std::int64_t> most;
  RegexAssertion assertion = RegexAssertion::kBegin;
  bool negative = false;                // kLookahead: what follows must not begin with the part
};
using RegexNodePointer = std::shared_ptr<RegexNode>;

inline RegexBound flipped(RegexBound bound) {
  return bound == RegexBound::kCertain ? RegexBound::kPossible : RegexBound::kCertain;
}

// Throws ConfigError with the byte of the expression that is wrong or not supported.
RegexNodePointer parse_regex(std::string_view expression, RegexBound bound);

}  // namespace nanochat
