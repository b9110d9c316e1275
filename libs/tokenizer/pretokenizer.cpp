#include "tokenizer/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <utility>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/utf8.h"
#include "tokenizer/internal/unicode_versions.h"

namespace nanochat {
namespace {

// Unicode's White_Space, the members of a character class.
constexpr std::string_view kWhiteSpace =
    R"(\x{9}-\x{D}\x{20}\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";
// The same for everything else, for \S inside a class.
constexpr std::string_view kNotWhiteSpace =
    R"(\x{0}-\x{8}\x{E}-\x{1F}\x{21}-\x{84}\x{86}-\x{9F}\x{A1}-\x{167F}\x{1681}-\x{1FFF}\x{200B}-\x{2027}\x{202A}-\x{202E})"
    R"(\x{2030}-\x{205E}\x{2060}-\x{2FFF}\x{3001}-\x{10FFFF})";

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
    if (data == nullptr || context == nullptr) throw OutOfMemoryError("cannot allocate the match data of a split pattern");
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

struct CategoryName {
  std::string_view name, abbreviation;
};
constexpr std::array kCategoryNames = {
    CategoryName{"letter", "L"},
    CategoryName{"uppercaseletter", "Lu"},
    CategoryName{"lowercaseletter", "Ll"},
    CategoryName{"titlecaseletter", "Lt"},
    CategoryName{"modifierletter", "Lm"},
    CategoryName{"otherletter", "Lo"},
    CategoryName{"mark", "M"},
    CategoryName{"combiningmark", "M"},
    CategoryName{"nonspacingmark", "Mn"},
    CategoryName{"spacingmark", "Mc"},
    CategoryName{"enclosingmark", "Me"},
    CategoryName{"number", "N"},
    CategoryName{"decimalnumber", "Nd"},
    CategoryName{"letternumber", "Nl"},
    CategoryName{"othernumber", "No"},
    CategoryName{"punctuation", "P"},
    CategoryName{"connectorpunctuation", "Pc"},
    CategoryName{"dashpunctuation", "Pd"},
    CategoryName{"openpunctuation", "Ps"},
    CategoryName{"closepunctuation", "Pe"},
    CategoryName{"initialpunctuation", "Pi"},
    CategoryName{"finalpunctuation", "Pf"},
    CategoryName{"otherpunctuation", "Po"},
    CategoryName{"symbol", "S"},
    CategoryName{"mathsymbol", "Sm"},
    CategoryName{"currencysymbol", "Sc"},
    CategoryName{"modifiersymbol", "Sk"},
    CategoryName{"othersymbol", "So"},
    CategoryName{"separator", "Z"},
    CategoryName{"spaceseparator", "Zs"},
    CategoryName{"lineseparator", "Zl"},
    CategoryName{"paragraphseparator", "Zp"},
    CategoryName{"other", "C"},
    CategoryName{"control", "Cc"},
    CategoryName{"format", "Cf"},
    CategoryName{"privateuse", "Co"},
    CategoryName{"unassigned", "Cn"},
};
// Properties of characters that are neither a category nor a script and mean the same in both.
constexpr std::array<std::string_view, 9> kBinaryProperties = {"alphabetic",        "lowercase",   "uppercase",
                                                               "ideographic",       "joincontrol", "emoji",
                                                               "emojipresentation", "any",         "extendedpictographic"};

// The name of a property without what Unicode says to ignore in it.
std::string loose_name(std::string_view name) {
  std::string loose;
  for (const char c : name) {
    if (c == ' ' || c == '_' || c == '-') continue;
    loose += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return loose;
}

// "Lu" for "Lu", "lu" and "Uppercase_Letter"; empty when it is no general category.
std::string category_of(std::string_view name) {
  const std::string loose = loose_name(name);
  for (const CategoryName& known : kCategoryNames) {
    if (loose == known.name || loose == loose_name(known.abbreviation)) return std::string(known.abbreviation);
  }
  return "";
}

// The members of a general category in a class.
std::string category_members(std::string_view category) {
  std::string members = fmt::format("\\p{{{}}}", category);
  for (const unicode::Category& newer : unicode::newer_categories()) {
    if (newer.name.starts_with(category)) members += fmt::format("\\x{{{:X}}}-\\x{{{:X}}}", +newer.first, +newer.last);
  }
  return members;
}

// Oniguruma's \w: Alphabetic, marks, decimal digits and connecting punctuation; of Latin-1 every number, too.
const std::string& word_members() {
  static const std::string members = "\\p{Alphabetic}" + category_members("L") + category_members("M") +
                                     category_members("Nd") + category_members("Pc") + R"(\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE})";
  return members;
}

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

namespace {

// Rewrites a pattern of ours for PCRE2.
class Pcre2Writer {
 public:
  explicit Pcre2Writer(std::string_view pattern) : rest_(pattern) {}

  std::string run() {
    while (!rest_.empty()) {
      if (rest_.front() == '\\' && rest_.size() > 1) {
        escape();
      } else {
        if (rest_.front() == '[' && !in_class_) {
          in_class_ = true;
        } else if (rest_.front() == ']') {
          in_class_ = false;
        }
        take(1);
      }
    }
    return std::move(out_);
  }

 private:
  void take(std::size_t bytes) {
    out_ += rest_.substr(0, bytes);
    rest_.remove_prefix(bytes);
  }
  void members(std::string_view inside, bool complement = false) {
    out_ += in_class_ ? std::string(inside) : fmt::format("[{}{}]", complement ? "^" : "", inside);
  }

  void escape() {
    const char c = rest_[1];
    if ((c == 'p' || c == 'P') && rest_.substr(2).starts_with("{") && rest_.find('}') != std::string_view::npos) {
      const std::size_t end = rest_.find('}');
      property(rest_.substr(3, end - 3), c == 'P');
      rest_.remove_prefix(end + 1);
      return;
    }
    // What stands for a complement can only be said outside a class; there PCRE2's own differs in new characters alone.
    if (in_class_ && (c == 'D' || c == 'W')) return take(2);
    switch (c) {
      case 's': members(kWhiteSpace); break;
      case 'S': in_class_ ? members(kNotWhiteSpace) : members(kWhiteSpace, true); break;
      case 'd': members(category_members("Nd")); break;
      case 'D': members(category_members("Nd"), true); break;
      case 'w': members(word_members()); break;
      case 'W': members(word_members(), true); break;
      case 'b':
      case 'B':
        if (in_class_) return take(2);
        out_ += fmt::format("(?:(?<=[{0}])(?{1}[{0}])|(?<![{0}])(?{2}[{0}]))", word_members(), c == 'b' ? '!' : '=',
                            c == 'b' ? '=' : '!');
        break;
      default: return take(2);
    }
    rest_.remove_prefix(2);
  }

  void property(std::string_view name, bool complement) {
    if (name.starts_with("^")) {
      name.remove_prefix(1);
      complement = !complement;
    }
    const std::string loose = loose_name(name);
    const std::string category = category_of(name);
    if (in_class_ && complement) {
      out_ += fmt::format("\\P{{{}}}", category.empty() ? std::string(name) : category);
    } else if (!category.empty()) {
      members(category_members(category), complement);
    } else if (loose == "han") {  // ideographs of Unicode 15 and 15.1
      members(R"(\p{sc:Han}\x{2FFC}-\x{2FFF}\x{31EF}\x{2B739}\x{2EBF0}-\x{2EE5D}\x{31350}-\x{323AF})", complement);
    } else {
      const bool binary = std::find(kBinaryProperties.begin(), kBinaryProperties.end(), loose) != kBinaryProperties.end();
      const bool as_it_is = binary || name.find_first_of(":=&") != std::string_view::npos;
      out_ += fmt::format("\\{}{{{}{}}}", complement ? 'P' : 'p', as_it_is ? "" : "sc:", name);
    }
  }

  std::string_view rest_;
  std::string out_;
  bool in_class_ = false;
};

}  // namespace

std::string to_pcre2(std::string_view pattern) { return Pcre2Writer(pattern).run(); }

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
    throw TokenizerError(fmt::format("split pattern \"{}\" does not compile: {} (after \"{}\")", pattern_, pcre2_message(error),
                                     translated.substr(0, offset)));
  }
  code_->jit = pcre2_jit_compile(code_->code, PCRE2_JIT_COMPLETE) == 0;
}

Pretokenizer::~Pretokenizer() = default;
Pretokenizer::Pretokenizer(Pretokenizer&&) noexcept = default;
Pretokenizer& Pretokenizer::operator=(Pretokenizer&&) noexcept = default;

bool Pretokenizer::can_match_empty() const {
  std::uint32_t can = 0;
  pcre2_pattern_info(code_->code, PCRE2_INFO_MATCHEMPTY, &can);
  return can != 0;
}

bool Pretokenizer::search(std::string_view text, std::size_t offset, std::size_t& begin, std::size_t& end) const {
  thread_local MatchState state;
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  int count = PCRE2_ERROR_JIT_STACKLIMIT;
  if (code_->jit) count = pcre2_jit_match(code_->code, subject, text.size(), offset, 0, state.data, state.context);
  if (count == PCRE2_ERROR_JIT_STACKLIMIT) {  // the interpreter keeps its backtracking points on the heap
    count = pcre2_match(code_->code, subject, text.size(), offset, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, state.data,
                        state.context);
  }
  if (count == PCRE2_ERROR_NOMATCH) return false;
  if (count < 0) {
    throw TokenizerError(fmt::format("split pattern \"{}\" fails at byte {} of a text of {} bytes: {}", pattern_, offset,
                                     text.size(), pcre2_message(count)));
  }
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(state.data);
  begin = bounds[0];
  end = bounds[1];
  return true;
}

bool Pretokenizer::next(std::string_view text, Position& position, std::size_t& begin, std::size_t& end) const {
  while (position.from <= text.size() && search(text, position.from, begin, end)) {
    if (begin < end || end != position.last_end) {
      position.from = position.last_end = end;
      return true;
    }
    position.from += std::max<std::size_t>(utf8::character_length(text.substr(position.from, 4)), 1);
  }
  return false;
}

}  // namespace nanochat
