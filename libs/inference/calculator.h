#pragma once
// The calculator for models. The reference's engine.py evaluates expressions with Python
// (use_calculator); here a small parser does. Commas are removed first, as there. An expression is either
//
//   arithmetic   numbers (12, .5, 3.), + - * / //, signs, parentheses, spaces: as Python 3 computes them, integers exact
//   a count      'strawberry'.count('r'): string literals in either quote, one after the other joined, in parentheses or not
//
// Anything else has no result. This includes what raises an exception in Python (1/0), what is too long (256
// bytes), too deep (32 parentheses or signs) or too large (an integer of more than 63 bits, or 53 as an
// operand of /, a float that is not finite), ** and (), which the reference refuses or prints as a tuple.
//
// Unlike in the reference, which must block Python's own names, a word may contain "open", "file", "dir" and the like.
//
// Time and memory are linear in the length. Pure function; thread-safe.

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace nanochat {

inline constexpr std::size_t kMaxExpressionBytes = 256;

// The result as Python prints it ("7", "0.1", "1e+16"); nullopt if there is none. Accepts any bytes.
std::optional<std::string> calculate(std::string_view expression);

// A float as Python's repr writes it: the shortest digits that round-trip, with an exponent below 1e-4 and from 1e16.
std::string python_float(double value);

}  // namespace nanochat
