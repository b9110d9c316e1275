#pragma once
// Splits text with a regular expression into the pieces that byte pair encoding never merges across.
//
// Patterns have tiktoken's syntax (Rust's regular expressions; regex_dialect.h describes the differences
// from tokenizer.json) and run on PCRE2 with JIT. Where the two differ, the pattern is rewritten: \s is
// Unicode's White_Space (PCRE2's also has U+180E), general categories are those of Unicode 16 (PCRE2 of
// Debian 12 has 14), \w and \b include marks, \p{Han} is the script only, and $ is only the end of the text.
// Immutable after construction; next() is thread-safe, with match data and a JIT stack for each thread.

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace nanochat {

// Published patterns. Sources: nanochat/tokenizer.py of the reference; tiktoken_ext/openai_public.py; GPT-2's
// encoder.py.
inline constexpr std::string_view kNanochatPattern =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)";
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kCl100kPattern =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s)";

// The same split as kCl100kPattern for Hugging Face, whose engine
// (Oniguruma) reads {1,3}+ as a repeated group and not as a possessive one.
inline constexpr std::string_view kCl100kPatternForOniguruma =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s)";

// "nanochat", "gpt2", "cl100k", or a regular expression, which is returned unchanged. Other published
// spellings of the same pattern become the one above, so equal tokenizers have equal fingerprints.
std::string resolve_pattern(std::string_view name_or_regex);
// The name of a published pattern, or "custom".
std::string_view pattern_name(std::string_view pattern);

class Pretokenizer {
 public:
  // Throws TokenizerError with the place in the pattern that does not compile.
  explicit Pretokenizer(std::string pattern);
  ~Pretokenizer();
  Pretokenizer(Pretokenizer&&) noexcept;
  Pretokenizer& operator=(Pretokenizer&&) noexcept;

  const std::string& pattern() const { return pattern_; }
  bool can_match_empty() const;
  // The position of the next search, and the end of the last match.
  struct Position {
    std::size_t from = 0, last_end = static_cast<std::size_t>(-1);
  };
  // Finds the next match in `text`, which must be valid UTF-8; false if there is none. A match may be
  // empty (a lookahead), but not at the end of the last one: there, the search continues one character
  // later, as in Hugging Face's. Throws TokenizerError if the pattern needs more steps than PCRE2 allows.
  bool next(std::string_view text, Position& position, std::size_t& begin, std::size_t& end) const;
  // Calls visit(piece) for every match and for the text between two matches; no piece is empty.
  template <class Visit>
  void for_each_piece(std::string_view text, Visit visit) const {
    Position position;
    std::size_t done = 0, begin = 0, end = 0;
    while (done < text.size() && next(text, position, begin, end)) {
      if (begin > done) visit(text.substr(done, begin - done));
      if (end > begin) visit(text.substr(begin, end - begin));
      done = end;
    }
    if (done < text.size()) visit(text.substr(done));
  }

 private:
  struct Code;
  bool search(std::string_view text, std::size_t offset, std::size_t& begin, std::size_t& end) const;
  std::string pattern_;
  std::unique_ptr<Code> code_;
};

// The pattern in PCRE2's syntax, for tests.
std::string to_pcre2(std::string_view pattern);

}  // namespace nanochat
