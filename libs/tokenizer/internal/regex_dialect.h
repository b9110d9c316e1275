#pragma once
// Split patterns in two dialects. Ours (pretokenizer.h) is that of tiktoken and the reference: Rust's. tokenizer.json
// speaks Oniguruma's, in which some of the same letters mean something else:
//
//   ours                 Oniguruma
//   ^  $                 \A  \z             (there ^ and $ are the ends of a line)
//   X{1,3}+              (?>X{1,3})         (there X{1,3}+ repeats X{1,3})
//   (?s:.)               (?m:.)
//   X{0,3}               X{,3} too
//   [0-9A-Fa-f]          \h
//
// Patterns in which nothing differs come back as they are.

#include <string>
#include <string_view>

namespace nanochat {

// The same pattern in our dialect. Throws TokenizerError naming the construct that has no equal here: sets inside sets,
// POSIX brackets, calls, absent groups, \G, \K, \X, options other than i and m.
std::string from_oniguruma(std::string_view pattern);

// The same pattern in Oniguruma's dialect.
std::string to_oniguruma(std::string_view pattern);

// A pattern that matches `text` and nothing else, in both dialects.
std::string literal_pattern(std::string_view text);

}  // namespace nanochat
