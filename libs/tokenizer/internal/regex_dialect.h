#pragma once
// Split patterns in two dialects. Ours (pretokenizer.h) is Rust's, as in tiktoken and the
// reference. tokenizer.json uses Oniguruma's, in which some of the same syntax has another meaning:
//
//   ours                 Oniguruma
//   ^  $                 \A  \z             (there ^ and $ are the ends of a line)
//   X{1,3}+              (?>X{1,3})         (there X{1,3}+ repeats X{1,3})
//   (?s:.)               (?m:.)
//   X{0,3}               X{,3} too
//   [0-9A-Fa-f]          \h
//
// Patterns without differences are returned unchanged.

#include <string>
#include <string_view>

namespace nanochat {

// The pattern in our dialect. Throws TokenizerError with the construct that has no equivalent:
// sets inside sets, POSIX brackets, calls, absent groups, \G, \K, \X, options other than i and m.
std::string from_oniguruma(std::string_view pattern);

// The pattern in Oniguruma's dialect.
std::string to_oniguruma(std::string_view pattern);

// A pattern that matches `text` only, in both dialects.
std::string literal_pattern(std::string_view text);

}  // namespace nanochat
