#pragma once
// The calculator that a model calls: what use_calculator of the reference's engine.py evaluates with Python, evaluated by a
// small parser of our own. Commas are dropped first, as there. Then the expression is either
//
//   arithmetic   numbers (12, .5, 3.), + - * / //, signs, parentheses, spaces: as Python 3 computes them, integers exact
//   a count      'strawberry'.count('r'): string literals in either quote, one after the other joined, in parentheses or not
//
// and anything else has no result; so has what an exception ends in Python (1/0), what is too long (256 bytes), too deep
// (32 parentheses or signs), too large (an integer of more than 63 bits, of more than 53 as an operand of /, a float that
// is not finite), ** and (), which the reference refuses or prints as a tuple.
//
// Unlike the reference, which has to keep Python's own names out, a word may contain "open", "file", "dir" and the like.
//
// Time and memory are linear in the length. Pure: thread-safe.

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace nanochat {

inline constexpr std::size_t kMaxExpressionBytes = 256;

// The result as Python prints it ("7", "0.1", "1e+16"); nullopt when there is none. Any bytes may come.
std::optional<std::string> calculate(std::string_view expression);

// A float as Python's repr writes it: the shortest digits that give it back, with an exponent below 1e-4 and from 1e16.
std::string python_float(double value);

}  // namespace nanochat
