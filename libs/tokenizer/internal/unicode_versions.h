#pragma once
// Where the libraries at hand know another version of Unicode than the `tokenizers` package does, whose ids this program
// gives. Three versions meet in that package: Oniguruma (split patterns) has Unicode 16, Rust's standard library
// (Lowercase, Digits) has Unicode 17, and its normalizers and Punctuation have tables of about Unicode 9. Here PCRE2
// 10.42 has Unicode 14 and utf8proc 2.8 has Unicode 15. tests/parity/tokenizers_parity.py compares every character.

#include <span>
#include <string_view>

namespace nanochat::unicode {

struct Category {
  char32_t first, last;
  std::string_view name;  // general category, "Lo"
};
// Characters whose general category in Unicode 16 is not the one that Unicode 14 has, in ascending order.
std::span<const Category> newer_categories();

// True for characters that the package's normalizers leave alone: they neither decompose nor have a combining class.
bool is_unknown_to_normalizers(char32_t character);
// True for characters of category M that StripAccents keeps.
bool is_kept_by_strip_accents(char32_t character);

// The lower-case form of a character that became a capital letter after Unicode 15; else the character itself.
char32_t newer_lower_case(char32_t character);

// Unicode's White_Space.
bool is_white_space(char32_t character);

// Patterns for the package's Digits and Punctuation, in the dialect of pretokenizer.h.
extern const std::string_view kNumericPattern;
extern const std::string_view kPunctuationPattern;

}  // namespace nanochat::unicode
