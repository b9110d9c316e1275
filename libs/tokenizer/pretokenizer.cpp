#include "tokenizer/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <utility>

#include <fmt/format.h>

#include "core/errors.h"

namespace nanochat {
namespace {

// Unicode's White_Space, the members of a character class.
constexpr std::string_view kWhiteSpace =
    R"(\x{9}-\x{D}\x{20}\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";
// Letters and numbers assigned by Unicode 15.0, 15.1 and 16.0; unknown to PCRE2 10.42, harmless to a newer one.
constexpr std::string_view kNewLetters =
    R"(\x{1C89}\x{1C8A}\x{A7CB}-\x{A7CD}\x{A7DA}-\x{A7DC}\x{105C0}-\x{105F3}\x{10D4A}-\x{10D65}\x{10D6F}-\x{10D85})"
    R"(\x{10EC2}-\x{10EC4}\x{1123F}\x{11240}\x{11380}-\x{11389}\x{1138B}\x{1138E}\x{11390}-\x{113B5}\x{113B7}\x{113D1})"
    R"(\x{113D3}\x{11BC0}-\x{11BE0}\x{11F02}\x{11F04}-\x{11F10}\x{11F12}-\x{11F33}\x{1342F}\x{13441}-\x{13446})"
    R"(\x{13460}-\x{143FA}\x{16100}-\x{1611D}\x{16D40}-\x{16D6C}\x{18CFF}\x{1B132}\x{1B155}\x{1DF25}-\x{1DF2A})"
    R"(\x{1E030}-\x{1E06D}\x{1E4D0}-\x{1E4EB}\x{1E5D0}-\x{1E5ED}\x{1E5F0}\x{2B739}\x{2EBF0}-\x{2EE5D}\x{31350}-\x{323AF})";
constexpr std::string_view kNewNumbers =
    R"(\x{10D40}-\x{10D49}\x{116D0}-\x{116E3}\x{11BF0}-\x{11BF9}\x{11F50}-\x{11F59}\x{16130}-\x{16139})"
    R"(\x{16D70}-\x{16D79}\x{1CCF0}-\x{1CCF9}\x{1D2C0}-\x{1D2D3}\x{1E4F0}-\x{1E4F9}\x{1E5F1}-\x{1E5FA})";

struct NamedPattern {
  std::string_view name, pattern;
};
constexpr std::array kNamedPatterns = {NamedPattern{"nanochat", kNanochatPattern}, NamedPattern{"gpt2", kGpt2Pattern},
                                       NamedPattern{"cl100k", kCl100kPattern}};

// Other spellings of those patterns that split every text alike.
constexpr std::array kAliases = {
    NamedPattern{"gpt2", R"('(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s)"},
    NamedPattern{"gpt2", R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"},
    NamedPattern{"gpt2", R"('s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}]+| ?[\p{N}]+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"},
    NamedPattern{"cl100k", kCl100kPatternForOniguruma},
};

// What each thread needs to run any pattern.
struct MatchState {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  // Reserved, not used up: a page is touched only when a match gets that deep.
  pcre2_jit_stack* stack = pcre2_jit_stack_create(std::size_t{32} << 10, std::size_t{16} << 20, nullptr);

  MatchState() {
    if (data == nullptr || context == nullptr)
      throw OutOfMemoryError("cannot allocate the match data of a split pattern");
    if (stack != nullptr) pcre2_jit_stack_assign(context, nullptr, stack);
  }
  MatchState(const MatchState&) = delete;
  MatchState& operator=(const MatchState&) = delete;
  ~MatchState() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    if (stack != nullptr) pcre2_jit_stack_free(stack);
  }
};

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

}  // namespace

std::string resolve_pattern(std::string_view name_or_regex) {
  for (const NamedPattern& known : kNamedPatterns) {
    if (name_or_regex == known.name) return std::string(known.pattern);
  }
  for (const NamedPattern& alias : kAliases) {
    if (name_or_regex == alias.pattern) return resolve_pattern(alias.name);
  }
  return std::string(name_or_regex);
}

std::string_view pattern_name(std::string_view pattern) {
  for (const NamedPattern& known : kNamedPatterns) {
    if (pattern == known.pattern) return known.name;
  }
  return "custom";
}

std::string to_pcre2(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const std::string_view rest = pattern.substr(i);
    const auto members = [&](std::string_view inside) {
      out += in_class ? std::string(inside) : fmt::format("[{}]", inside);
    };
    if (rest.starts_with("\\s")) {
      members(kWhiteSpace);
      ++i;
    } else if (rest.starts_with("\\S") && !in_class) {
      out += fmt::format("[^{}]", kWhiteSpace);
      ++i;
    } else if (rest.starts_with("\\p{L}")) {
      members(fmt::format("\\p{{L}}{}", kNewLetters));
      i += 4;
    } else if (rest.starts_with("\\p{N}")) {
      members(fmt::format("\\p{{N}}{}", kNewNumbers));
      i += 4;
    } else if (rest.front() == '\\' && rest.size() > 1) {
      out += rest.substr(0, 2);
      ++i;
    } else {
      if (rest.front() == '[' && !in_class) {
        in_class = true;
      } else if (rest.front() == ']') {
        in_class = false;
      }
      out += rest.front();
    }
  }
  return out;
}

struct Pretokenizer::Code {
  pcre2_code* code = nullptr;
  bool jit = false;
  Code() = default;
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() { pcre2_code_free(code); }
};

Pretokenizer::Pretokenizer(std::string pattern) : pattern_(std::move(pattern)), code_(std::make_unique<Code>()) {
  const std::string translated = to_pcre2(pattern_);
  int error = 0;
  PCRE2_SIZE offset = 0;
  code_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY, &error, &offset, nullptr);
  if (code_->code == nullptr) {
    throw TokenizerError(fmt::format("split pattern \"{}\" does not compile: {} (after \"{}\")", pattern_,
                                     pcre2_message(error), translated.substr(0, offset)));
  }
  code_->jit = pcre2_jit_compile(code_->code, PCRE2_JIT_COMPLETE) == 0;
}

Pretokenizer::~Pretokenizer() = default;
Pretokenizer::Pretokenizer(Pretokenizer&&) noexcept = default;
Pretokenizer& Pretokenizer::operator=(Pretokenizer&&) noexcept = default;

bool Pretokenizer::find(std::string_view text, std::size_t offset, std::size_t& begin, std::size_t& end) const {
  thread_local MatchState state;
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  int count = PCRE2_ERROR_JIT_STACKLIMIT;
  if (code_->jit) {
    count = pcre2_jit_match(code_->code, subject, text.size(), offset, PCRE2_NOTEMPTY, state.data, state.context);
  }
  if (count == PCRE2_ERROR_JIT_STACKLIMIT) {  // the interpreter keeps its backtracking points on the heap
    count = pcre2_match(code_->code, subject, text.size(), offset, PCRE2_NOTEMPTY | PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                        state.data, state.context);
  }
  if (count == PCRE2_ERROR_NOMATCH) return false;
  if (count < 0) {
    throw TokenizerError(fmt::format("split pattern \"{}\" fails at byte {} of a text of {} bytes: {}", pattern_,
                                     offset, text.size(), pcre2_message(count)));
  }
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(state.data);
  begin = bounds[0];
  end = bounds[1];
  return true;
}

}  // namespace nanochat
