#pragma once
// Splits text into the pieces that byte pair encoding never merges across, by a regular expression.
//
// Patterns are written as tiktoken and Hugging Face write them (Rust's regular expressions) and run on PCRE2 with
// JIT. Where the two differ the pattern is rewritten: \s is Unicode's White_Space (PCRE2's also has U+180E), \p{L}
// and \p{N} know the letters and numbers of Unicode 16 (the PCRE2 of Debian 12 has 14), and $ is the end of the text
// only. Immutable after construction; find() is thread-safe, each thread keeps its own match data and JIT stack.

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

// The same split as kCl100kPattern for Hugging Face, whose engine (Oniguruma) reads {1,3}+ as a repeated group
// instead of a possessive one.
inline constexpr std::string_view kCl100kPatternForOniguruma =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s)";

// "nanochat", "gpt2", "cl100k", or a regular expression, which is returned as it is; other published spellings of the
// same pattern become the one above, so that equal tokenizers have equal fingerprints.
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
  // The next match at or after `offset` of `text`, which must be valid UTF-8; matches are never empty. False when
  // there is none. Throws TokenizerError when the pattern needs more steps than PCRE2 allows.
  bool find(std::string_view text, std::size_t offset, std::size_t& begin, std::size_t& end) const;

 private:
  struct Code;
  std::string pattern_;
  std::unique_ptr<Code> code_;
};

// The pattern in PCRE2's dialect, for tests.
std::string to_pcre2(std::string_view pattern);

}  // namespace nanochat
