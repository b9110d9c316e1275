#pragma once
// Differences between the Unicode versions of our libraries and of the `tokenizers` package, whose ids this
// program gives. The package has three versions: Unicode 16 in Oniguruma (split patterns), Unicode 17 in Rust's
// standard library (Lowercase, Digits), and about Unicode 9 in its normalizers and Punctuation. Here, PCRE2 10.42
// has Unicode 14 and utf8proc 2.8 has Unicode 15. tests/parity/tokenizers_parity.py compares every character.

#include <span>
#include <string_view>

namespace nanochat::unicode {

struct Category {
  char32_t first, last;
  std::string_view name;  // general category, "Lo"
};
// Characters whose general category differs between Unicode 14 and Unicode 16, in ascending order.
std::span<const Category> newer_categories();

// True for characters that the package's normalizers do not change: no decomposition and no combining class.
bool is_unknown_to_normalizers(char32_t character);
// True for characters of category M that StripAccents keeps.
bool is_kept_by_strip_accents(char32_t character);

// The lower-case form of a character that became a capital letter after Unicode 15; otherwise the character.
char32_t newer_lower_case(char32_t character);

// Unicode's White_Space.
bool is_white_space(char32_t character);

// Patterns for the package's Digits and Punctuation, in the dialect of pretokenizer.h.
extern const std::string_view kNumericPattern;
extern const std::string_view kPunctuationPattern;

}  // namespace nanochat::unicode
