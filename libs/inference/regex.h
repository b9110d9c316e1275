#pragma once
// Regular expressions as automata over bytes.
//
//   compile_regex("^\\d{4}-\\d{2}$").matches("2024-05");   // true
//
// Supported: alternation, groups (also named and non-capturing), greedy and lazy quantifiers, character classes, lookahead,
// . \d \w \s \D \W \S \b \B ^ $ \A \z \Z, and the escapes \t \n \r \f \v \0 \xHH \uHHHH \u{H} \cX. Refused: back-references,
// look-behind, inline flags, possessive quantifiers and \p. "$" is the end of the text only.
//
// ECMA 262 and Python's re differ in what \d, \w, \s, "." and "$" match beyond ASCII. The automaton of kCertain matches only
// texts that both of them match; the one of kPossible matches every text that either matches. To exclude what an expression
// matches, subtract kPossible.

#include <cstddef>
#include <string_view>

#include "inference/byte_dfa.h"

namespace nanochat {

enum class RegexBound { kCertain, kPossible };
enum class RegexScope { kSearch, kWhole };  // the expression is found somewhere in the text, or is all of it

// Throws ConfigError that says what is wrong or not supported, and at which byte of the expression. An expression whose
// automaton takes very many steps to build is refused; with `steps`, those of several expressions are counted together.
ByteDfa compile_regex(std::string_view expression, RegexScope scope = RegexScope::kSearch,
                      RegexBound bound = RegexBound::kCertain, std::size_t* steps = nullptr);

}  // namespace nanochat
