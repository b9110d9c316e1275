// Parses regular expressions in the syntax that ECMA 262 and Python's re have in common.

#include "inference/internal/regex_syntax.h"

#include <algorithm>
#include <utility>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "inference/internal/pattern_scanner.h"

namespace nanochat {
namespace {

// ------------------------------------------------------------------------------------------------- sets of code points

// What a class certainly matches, and what it may match, by the dialect.
struct CodeSet {
  CodeRanges certain, possible;
};

CodeSet exactly(const CodeRanges& ranges) { return {ranges, ranges}; }
CodeSet negated(const CodeSet& set) { return {complement(set.possible), complement(set.certain)}; }
void add(CodeSet& set, const CodeSet& other) {
  set.certain.insert(set.certain.end(), other.certain.begin(), other.certain.end());
  set.possible.insert(set.possible.end(), other.possible.begin(), other.possible.end());
}

// Without digits (Nd) of Unicode: Latin to Cyrillic, East Asian scripts, symbols.
const CodeRanges kNoDigits = {{0, '/'}, {':', 0x65f}, {0x2010, 0x2fff}, {0x3000, 0xa61f}, {0x1f300, 0x1faff}};
// Without letters, digits and numbers: punctuation, arrows, mathematical signs, pictures.
const CodeRanges kNoWord = {{0, '/'},         {':', '@'},       {'[', '^'},       {'`', '`'},        {'{', 0xa9},
                            {0x2010, 0x2027}, {0x2030, 0x205e}, {0x2190, 0x23ff}, {0x1f300, 0x1f5ff}};
const CodeRanges kSpaces = {{'\t', '\r'}, {' ', ' '}};
const CodeRanges kPossibleSpaces = {{'\t', '\r'},     {0x1c, ' '},      {0x85, 0x85},     {0xa0, 0xa0},
                                    {0x1680, 0x1680}, {0x180e, 0x180e}, {0x2000, 0x200a}, {0x2028, 0x2029},
                                    {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}, {0xfeff, 0xfeff}};

CodeSet class_of_escape(char letter) {
  switch (letter) {
    case 'd': return {{{'0', '9'}}, complement(kNoDigits)};
    case 'w': return {{{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}, complement(kNoWord)};
    case 's': return {kSpaces, kPossibleSpaces};
    case 'D': return negated(class_of_escape('d'));
    case 'W': return negated(class_of_escape('w'));
    default: return negated(class_of_escape('s'));
  }
}

// ------------------------------------------------------------------------------------------------- expressions

class Parser : private PatternScanner {
 public:
  Parser(std::string_view text, RegexBound bound) : PatternScanner(text), bound_(bound) {}

  RegexNodePointer run() {
    if (!well_formed()) refuse("malformed UTF-8");
    RegexNodePointer all = alternatives();
    if (at_ < text_.size()) refuse("a ')' without '('");
    return all;
  }

 private:
  static constexpr int kDeepest = 200;

  [[noreturn]] void refuse(std::string_view what) const {
    throw ConfigError(fmt::format("regular expression, byte {}: {}", at_ + 1, what));
  }
  RegexNodePointer set(const CodeSet& codes) const {
    auto node = std::make_shared<RegexNode>();
    node->kind = RegexNode::Kind::kSet;
    node->ranges = merged(bound_ == RegexBound::kCertain ? codes.certain : codes.possible);
    return node;
  }
  static RegexNodePointer assertion(RegexAssertion which) {
    auto node = std::make_shared<RegexNode>();
    node->kind = RegexNode::Kind::kAssertion;
    node->assertion = which;
    return node;
  }
  RegexNodePointer end_assertion() const {
    return assertion(bound_ == RegexBound::kCertain ? RegexAssertion::kEnd : RegexAssertion::kEndOrNewline);
  }

  RegexNodePointer alternatives() {
    if (++depth_ > kDeepest) refuse("groups are nested more than 200 deep");
    auto node = std::make_shared<RegexNode>();
    node->kind = RegexNode::Kind::kAlternatives;
    do {
      node->parts.push_back(sequence());
    } while (take("|"));
    --depth_;
    return node->parts.size() == 1 ? node->parts.front() : node;
  }

  RegexNodePointer sequence() {
    auto node = std::make_shared<RegexNode>();
    while (!done() && !next_is("|") && !next_is(")")) node->parts.push_back(repeated(atom()));
    return node;
  }

  RegexNodePointer repeated(RegexNodePointer inner) {
    for (bool again = false;; again = true) {
      const std::size_t before = at_;
      std::int64_t least = 0;
      std::optional<std::int64_t> most;
      if (take("*")) {
      } else if (take("+")) {
        least = 1;
      } else if (take("?")) {
        most = 1;
      } else if (!counts(least, most)) {
        return inner;
      }
      if (again) {
        at_ = before;
        refuse("a quantifier behind a quantifier is not supported");
      }
      if (inner->kind == RegexNode::Kind::kAssertion || inner->kind == RegexNode::Kind::kLookahead)
        refuse("a quantifier behind an assertion is not supported");
      if (next_is("+")) refuse("possessive quantifiers are not supported");
      take("?");  // lazy: the same texts
      auto node = std::make_shared<RegexNode>();
      node->kind = RegexNode::Kind::kRepeat;
      node->parts = {std::move(inner)};
      node->least = least;
      node->most = most;
      inner = std::move(node);
    }
  }

  // {n}, {n,} and {n,m}; any other brace stands for itself.
  bool counts(std::int64_t& least, std::optional<std::int64_t>& most) {
    if (!next_is("{")) return false;
    const std::size_t before = at_++;
    const auto low = count();
    const bool comma = take(",");
    const auto high = comma ? count() : low;
    if (!take("}") || (!low && !high)) {
      at_ = before;
      return false;
    }
    if (!low) refuse("{,n} is not supported: ECMA 262 and Python read it differently");
    if (*low > kMostRepeats || high.value_or(0) > kMostRepeats) refuse("counts above 4096 are not supported");
    if (high && *high < *low) refuse("the counts of a quantifier are in the wrong order");
    least = *low;
    most = high;
    return true;
  }

  RegexNodePointer atom() {
    if (take("(")) return group();
    if (take("[")) return set(bracket());
    if (take("^")) return assertion(RegexAssertion::kBegin);
    if (take("$")) return end_assertion();
    if (take(".")) return set({complement({{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}}), complement({{'\n', '\n'}})});
    if (next_is("*") || next_is("+") || next_is("?")) refuse("a quantifier has nothing to repeat");
    if (!take("\\")) {
      const std::uint32_t code = character();
      return set(exactly({{code, code}}));
    }
    if (done()) refuse("a backslash at the end");
    const char letter = text_[at_];
    if (letter == 'b' || letter == 'B' || letter == 'A' || letter == 'z' || letter == 'Z') {
      ++at_;
      if (letter == 'A') return assertion(RegexAssertion::kBegin);
      if (letter == 'z' || letter == 'Z') return assertion(RegexAssertion::kEnd);
      return assertion(letter == 'b' ? RegexAssertion::kBoundary : RegexAssertion::kNoBoundary);
    }
    if (letter >= '1' && letter <= '9') refuse("back-references are not supported");
    if (letter == 'k') refuse("back-references are not supported");
    return set(escape());
  }

  RegexNodePointer group() {
    if (take("?")) {
      if (take("P=")) refuse("back-references are not supported");
      if (next_is("<=") || next_is("<!")) refuse("look-behind is not supported");
      if (take("=")) return lookahead(false);
      if (take("!")) return lookahead(true);
      if (take("P<") || take("<")) {
        const std::size_t end = text_.find('>', at_);
        if (end == std::string_view::npos || end == at_) refuse("the name of a group does not end");
        at_ = end + 1;
      } else if (!take(":")) {
        refuse("inline flags, comments and conditions are not supported");
      }
    }
    RegexNodePointer inner = alternatives();
    if (!take(")")) refuse("a '(' without ')'");
    // One node of its own: a quantifier behind the group may repeat an assertion, which does no harm.
    auto node = std::make_shared<RegexNode>();
    node->parts = {std::move(inner)};
    return node;
  }

  // What a negative one excludes is all that may match.
  RegexNodePointer lookahead(bool negative) {
    auto node = std::make_shared<RegexNode>();
    node->kind = RegexNode::Kind::kLookahead;
    node->negative = negative;
    const RegexBound outer = bound_;
    if (negative) bound_ = flipped(bound_);
    node->parts = {alternatives()};
    bound_ = outer;
    if (!take(")")) refuse("a '(' without ')'");
    return node;
  }

  // After the backslash: a class, or one character.
  CodeSet escape() {
    const auto one = [](std::uint32_t code) { return exactly({{code, code}}); };
    if (static_cast<unsigned char>(text_[at_]) >= 0x80) return one(character());
    const char letter = text_[at_++];
    switch (letter) {
      case 'd':
      case 'D':
      case 'w':
      case 'W':
      case 's':
      case 'S': return class_of_escape(letter);
      case 't': return one('\t');
      case 'n': return one('\n');
      case 'r': return one('\r');
      case 'f': return one('\f');
      case 'v': return one('\v');
      case 'c':
        if (!done() && ((text_[at_] >= 'a' && text_[at_] <= 'z') || (text_[at_] >= 'A' && text_[at_] <= 'Z')))
          return one(static_cast<std::uint32_t>(text_[at_++]) & 0x1fU);
        break;
      case '0':
        if (done() || text_[at_] < '0' || text_[at_] > '9') return one(0);
        break;
      case 'x':
        if (const auto code = hex(2)) return one(*code);
        break;
      case 'u': return one(unicode_escape());
      case 'p':
      case 'P': refuse("\\p is not supported");
      default: {
        const bool alphanumeric = (letter >= '0' && letter <= '9') || (letter >= 'a' && letter <= 'z') ||
                                  (letter >= 'A' && letter <= 'Z');
        if (!alphanumeric) return one(static_cast<unsigned char>(letter));
      }
    }
    refuse(fmt::format("the escape \\{} is not supported", letter));
  }

  std::uint32_t unicode_escape() {
    if (take("{")) {
      const std::size_t end = text_.find('}', at_);
      const std::size_t digits = end == std::string_view::npos ? 0 : end - at_;
      const auto code = digits >= 1 && digits <= 6 ? hex(digits) : std::nullopt;
      if (!code || !take("}") || *code > kLastCodePoint || (*code >= 0xd800 && *code <= 0xdfff))
        refuse("\\u{...} has no code point");
      return *code;
    }
    const auto code = hex(4);
    if (!code) refuse("\\u needs four hexadecimal digits");
    if (*code < 0xd800 || *code > 0xdfff) return *code;
    if (*code <= 0xdbff && take("\\u")) {
      const auto low = hex(4);
      if (low && *low >= 0xdc00 && *low <= 0xdfff) return 0x10000 + ((*code - 0xd800) << 10) + (*low - 0xdc00);
    }
    refuse("\\u has a surrogate without its other half");
  }

  CodeSet bracket() {
    const bool negate = take("^");
    if (next_is("]")) refuse("a class that is empty or begins with ']' is not supported: write \\]");
    CodeSet codes;
    while (!take("]")) {
      if (done()) refuse("a '[' without ']'");
      const std::optional<std::uint32_t> first = class_member(codes);
      if (!next_is("-") || text_.substr(at_).starts_with("-]")) {
        if (first) add(codes, exactly({{*first, *first}}));
        continue;
      }
      take("-");
      if (done()) refuse("a '[' without ']'");
      CodeSet other;
      const std::optional<std::uint32_t> last = class_member(other);
      if (!first || !last) refuse("a range between classes is not supported");
      if (*last < *first) refuse("a range of characters is in the wrong order");
      add(codes, exactly({{*first, *last}}));
    }
    return negate ? negated(codes) : codes;
  }

  // One character of a class in brackets; nullopt: an escape such as \d, which was added to `codes`.
  std::optional<std::uint32_t> class_member(CodeSet& codes) {
    if (!take("\\")) return character();
    if (done()) refuse("a backslash at the end");
    if (take("b")) return '\b';
    if (take("-")) return '-';
    const CodeSet escaped = escape();
    if (escaped.certain.size() == 1 && escaped.certain == escaped.possible &&
        escaped.certain[0].first == escaped.certain[0].second)
      return escaped.certain[0].first;
    add(codes, escaped);
    return {};
  }

  RegexBound bound_;
  int depth_ = 0;
};

}  // namespace

RegexNodePointer parse_regex(std::string_view expression, RegexBound bound) { return Parser(expression, bound).run(); }

}  // namespace nanochat
