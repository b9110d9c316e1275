#include "inference/regex.h"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/utf8.h"

namespace nanochat {
namespace {

// ------------------------------------------------------------------------------------------------- sets of code points

using Range = std::pair<std::uint32_t, std::uint32_t>;
using Ranges = std::vector<Range>;
constexpr std::uint32_t kLastCode = 0x10ffff;

Ranges sorted(Ranges ranges) {
  std::sort(ranges.begin(), ranges.end());
  Ranges out;
  for (const Range& range : ranges) {
    if (!out.empty() && range.first <= out.back().second + 1) {
      out.back().second = std::max(out.back().second, range.second);
    } else {
      out.push_back(range);
    }
  }
  return out;
}

Ranges complement(const Ranges& ranges) {
  Ranges out;
  std::uint32_t next = 0;
  for (const Range& range : sorted(ranges)) {
    if (range.first > next) out.emplace_back(next, range.first - 1);
    next = range.second + 1;
  }
  if (next <= kLastCode) out.emplace_back(next, kLastCode);
  return out;
}

// What a class certainly matches, and what it may match, by the dialect.
struct CodeSet {
  Ranges certain, possible;
};

CodeSet exactly(const Ranges& ranges) { return {ranges, ranges}; }
CodeSet negated(const CodeSet& set) { return {complement(set.possible), complement(set.certain)}; }
void add(CodeSet& set, const CodeSet& other) {
  set.certain.insert(set.certain.end(), other.certain.begin(), other.certain.end());
  set.possible.insert(set.possible.end(), other.possible.begin(), other.possible.end());
}

// Without digits (Nd) of Unicode: Latin to Cyrillic, East Asian scripts, symbols.
const Ranges kNoDigits = {{0, '/'}, {':', 0x65f}, {0x2010, 0x2fff}, {0x3000, 0xa61f}, {0x1f300, 0x1faff}};
// Without letters, digits and numbers: punctuation, arrows, mathematical signs, pictures.
const Ranges kNoWord = {{0, '/'},         {':', '@'},       {'[', '^'},       {'`', '`'},        {'{', 0xa9},
                        {0x2010, 0x2027}, {0x2030, 0x205e}, {0x2190, 0x23ff}, {0x1f300, 0x1f5ff}};
const Ranges kSpaces = {{'\t', '\r'}, {' ', ' '}};
const Ranges kPossibleSpaces = {{'\t', '\r'},     {0x1c, ' '},      {0x85, 0x85},     {0xa0, 0xa0},
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

enum class Assertion { kBegin, kEnd, kEndOrNewline, kBoundary, kNoBoundary };

struct Node {
  enum class Kind { kSet, kSequence, kAlternatives, kRepeat, kAssertion, kLookahead } kind = Kind::kSequence;
  Ranges ranges;                        // kSet
  std::vector<std::shared_ptr<Node>> parts;
  std::int64_t least = 0;               // kRepeat
  std::optional<std::int64_t> most;
  Assertion assertion = Assertion::kBegin;
  bool negative = false;                // kLookahead: what follows must not begin with the part
};
using NodePointer = std::shared_ptr<Node>;

RegexBound flipped(RegexBound bound) { return bound == RegexBound::kCertain ? RegexBound::kPossible : RegexBound::kCertain; }

class Parser {
 public:
  Parser(std::string_view text, RegexBound bound) : text_(text), bound_(bound) {}

  NodePointer run() {
    if (!utf8_ok()) refuse("malformed UTF-8");
    NodePointer all = alternatives();
    if (at_ < text_.size()) refuse("a ')' without '('");
    return all;
  }

 private:
  static constexpr std::int64_t kMostRepeats = 4096;
  static constexpr int kDeepest = 200;

  [[noreturn]] void refuse(std::string_view what) const {
    throw ConfigError(fmt::format("regular expression, byte {}: {}", at_ + 1, what));
  }
  bool utf8_ok() const {
    for (std::string_view rest = text_; !rest.empty();) {
      const std::size_t length = utf8::character_length(rest);
      if (length == 0) return false;
      rest.remove_prefix(length);
    }
    return true;
  }
  bool done() const { return at_ == text_.size(); }
  bool next_is(std::string_view what) const { return text_.substr(at_).starts_with(what); }
  bool take(std::string_view what) {
    if (!next_is(what)) return false;
    at_ += what.size();
    return true;
  }

  NodePointer set(const CodeSet& codes) const {
    auto node = std::make_shared<Node>();
    node->kind = Node::Kind::kSet;
    node->ranges = sorted(bound_ == RegexBound::kCertain ? codes.certain : codes.possible);
    return node;
  }
  static NodePointer assertion(Assertion which) {
    auto node = std::make_shared<Node>();
    node->kind = Node::Kind::kAssertion;
    node->assertion = which;
    return node;
  }
  NodePointer end_assertion() const {
    return assertion(bound_ == RegexBound::kCertain ? Assertion::kEnd : Assertion::kEndOrNewline);
  }

  NodePointer alternatives() {
    if (++depth_ > kDeepest) refuse("groups are nested more than 200 deep");
    auto node = std::make_shared<Node>();
    node->kind = Node::Kind::kAlternatives;
    do {
      node->parts.push_back(sequence());
    } while (take("|"));
    --depth_;
    return node->parts.size() == 1 ? node->parts.front() : node;
  }

  NodePointer sequence() {
    auto node = std::make_shared<Node>();
    while (!done() && !next_is("|") && !next_is(")")) node->parts.push_back(repeated(atom()));
    return node;
  }

  NodePointer repeated(NodePointer inner) {
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
      if (inner->kind == Node::Kind::kAssertion || inner->kind == Node::Kind::kLookahead)
        refuse("a quantifier behind an assertion is not supported");
      if (next_is("+")) refuse("possessive quantifiers are not supported");
      take("?");  // lazy: the same texts
      auto node = std::make_shared<Node>();
      node->kind = Node::Kind::kRepeat;
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
    const auto number = [&]() -> std::optional<std::int64_t> {
      std::int64_t value = 0;
      const std::size_t first = at_;
      for (; !done() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_)
        value = std::min(value * 10 + text_[at_] - '0', kMostRepeats + 1);
      if (at_ == first) return {};
      return value;
    };
    const auto low = number();
    const bool comma = take(",");
    const auto high = comma ? number() : low;
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

  NodePointer atom() {
    if (take("(")) return group();
    if (take("[")) return set(bracket());
    if (take("^")) return assertion(Assertion::kBegin);
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
      if (letter == 'A') return assertion(Assertion::kBegin);
      if (letter == 'z' || letter == 'Z') return assertion(Assertion::kEnd);
      return assertion(letter == 'b' ? Assertion::kBoundary : Assertion::kNoBoundary);
    }
    if (letter >= '1' && letter <= '9') refuse("back-references are not supported");
    if (letter == 'k') refuse("back-references are not supported");
    return set(escape());
  }

  NodePointer group() {
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
    NodePointer inner = alternatives();
    if (!take(")")) refuse("a '(' without ')'");
    // One node of its own: a quantifier behind the group may repeat an assertion, which does no harm.
    auto node = std::make_shared<Node>();
    node->parts = {std::move(inner)};
    return node;
  }

  // What a negative one excludes is all that may match.
  NodePointer lookahead(bool negative) {
    auto node = std::make_shared<Node>();
    node->kind = Node::Kind::kLookahead;
    node->negative = negative;
    const RegexBound outer = bound_;
    if (negative) bound_ = flipped(bound_);
    node->parts = {alternatives()};
    bound_ = outer;
    if (!take(")")) refuse("a '(' without ')'");
    return node;
  }

  std::uint32_t character() {
    const std::string_view rest = text_.substr(at_);
    const std::size_t length = utf8::character_length(rest);
    at_ += length;
    return static_cast<std::uint32_t>(utf8::decode_character(rest, length));
  }

  std::optional<std::uint32_t> hex(std::size_t digits) {
    std::uint32_t code = 0;
    if (text_.size() - at_ < digits) return {};
    for (std::size_t i = 0; i < digits; ++i) {
      const char c = text_[at_ + i];
      const bool digit = c >= '0' && c <= '9', lower = c >= 'a' && c <= 'f', upper = c >= 'A' && c <= 'F';
      if (!digit && !lower && !upper) return {};
      code = code * 16 + static_cast<std::uint32_t>(digit ? c - '0' : lower ? c - 'a' + 10 : c - 'A' + 10);
    }
    at_ += digits;
    return code;
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
      if (!code || !take("}") || *code > kLastCode || (*code >= 0xd800 && *code <= 0xdfff))
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

  std::string_view text_;
  RegexBound bound_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

// ------------------------------------------------------------------------------------------------- automata

struct Nfa {
  struct Edge {
    enum class Kind : std::uint8_t { kBytes, kFree, kAssertion, kLookahead } kind;
    ByteRange bytes;
    Assertion assertion;
    std::int32_t to;
    std::size_t lookahead = 0;
  };
  std::vector<std::vector<Edge>> states;
  std::vector<const Node*> lookaheads;
  static constexpr std::size_t kMaxStates = 100'000;

  std::int32_t add() {
    if (states.size() >= kMaxStates) throw ConfigError("regular expression: is too long, or has too high counts");
    states.emplace_back();
    return static_cast<std::int32_t>(states.size()) - 1;
  }
  std::vector<Edge>& edges(std::int32_t state) { return states[static_cast<std::size_t>(state)]; }
  void free_edge(std::int32_t from, std::int32_t to) {
    edges(from).push_back({Edge::Kind::kFree, {0, 0}, Assertion::kBegin, to, 0});
  }
  void characters(std::int32_t from, std::int32_t to, const Ranges& ranges) {
    for (const Range& range : ranges) {
      for (const auto& sequence : utf8_ranges(range.first, range.second)) {
        std::int32_t at = from;
        for (std::size_t i = 0; i < sequence.size(); ++i) {
          const std::int32_t target = i + 1 == sequence.size() ? to : add();
          edges(at).push_back({Edge::Kind::kBytes, sequence[i], Assertion::kBegin, target, 0});
          at = target;
        }
      }
    }
  }

  // Adds the node behind `from`; returns where it ends.
  std::int32_t build(const Node& node, std::int32_t from) {
    switch (node.kind) {
      case Node::Kind::kSet: {
        const std::int32_t end = add();
        characters(from, end, node.ranges);
        return end;
      }
      case Node::Kind::kAssertion: {
        const std::int32_t end = add();
        edges(from).push_back({Edge::Kind::kAssertion, {0, 0}, node.assertion, end, 0});
        return end;
      }
      case Node::Kind::kLookahead: {
        const std::int32_t end = add();
        edges(from).push_back({Edge::Kind::kLookahead, {0, 0}, Assertion::kBegin, end, lookaheads.size()});
        lookaheads.push_back(&node);
        return end;
      }
      case Node::Kind::kSequence: {
        for (const NodePointer& part : node.parts) from = build(*part, from);
        return from;
      }
      case Node::Kind::kAlternatives: {
        const std::int32_t end = add();
        for (const NodePointer& part : node.parts) {
          const std::int32_t begin = add();
          free_edge(from, begin);
          free_edge(build(*part, begin), end);
        }
        return end;
      }
      case Node::Kind::kRepeat: break;
    }
    for (std::int64_t i = 0; i < node.least; ++i) from = build(*node.parts.front(), from);
    const std::int32_t end = add();
    if (!node.most) {
      const std::int32_t loop = add();
      free_edge(from, loop);
      free_edge(loop, end);
      free_edge(build(*node.parts.front(), loop), loop);
      return end;
    }
    for (std::int64_t i = node.least; i < *node.most; ++i) {
      free_edge(from, end);
      const std::int32_t begin = add();
      free_edge(from, begin);
      from = build(*node.parts.front(), begin);
    }
    free_edge(from, end);
    return end;
  }
};

enum class Beside : std::uint8_t { kNothing, kWord, kOther, kNewline, kUnknown };  // what is before or after a place

Beside beside(unsigned char byte) {
  if (byte >= 0x80) return Beside::kUnknown;  // whether it is a letter depends on the dialect
  if (byte == '\n') return Beside::kNewline;
  const bool word = (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') || byte == '_';
  return word ? Beside::kWord : Beside::kOther;
}

bool looks_at_letters(const Node& node) {
  if (node.kind == Node::Kind::kAssertion)
    return node.assertion == Assertion::kBoundary || node.assertion == Assertion::kNoBoundary;
  return std::any_of(node.parts.begin(), node.parts.end(), [](const NodePointer& part) { return looks_at_letters(*part); });
}
bool has_assertions(const Node& node) {
  if (node.kind == Node::Kind::kAssertion || node.kind == Node::Kind::kLookahead) return true;
  return std::any_of(node.parts.begin(), node.parts.end(), [](const NodePointer& part) { return has_assertions(*part); });
}

struct Settings {
  RegexBound bound;
  std::size_t& steps;
};

ByteDfa build(const Node& node, bool anywhere, bool more, Beside before, const Settings& settings);

// The states of an NFA that a text may have led to. What a lookahead asks for goes along with a state: the state that the
// lookahead's own automaton is in.
class Subsets {
 public:
  Subsets(const Nfa& nfa, std::int32_t accept, const Node& node, const Settings& settings)
      : nfa_(nfa), accept_(accept), settings_(settings), looks_(has_assertions(node)), boundaries_(looks_at_letters(node)) {
    demand_id({});
  }

  ByteDfa run(std::int32_t start, Beside before_start) {
    // The automata of lookaheads are there before bytes are put into classes.
    for (std::size_t i = 0; i < nfa_.lookaheads.size(); ++i) {
      const Node& node = *nfa_.lookaheads[i];
      const RegexBound bound = node.negative ? flipped(settings_.bound) : settings_.bound;
      for (const Beside before : {Beside::kNothing, Beside::kWord, Beside::kOther, Beside::kNewline, Beside::kUnknown}) {
        // All but the beginning are alike where nothing looks at letters.
        if (!boundaries_ && before != Beside::kNothing && before != Beside::kOther) continue;
        lookaheads_[{i, before}] = {
            build(*node.parts.front(), false, true, before, {bound, settings_.steps}), node.negative, {}};
        find_certain(lookaheads_.at({i, before}));
      }
    }
    find_classes();
    state_of({{start, 0}}, boundaries_ || before_start == Beside::kNothing ? before_start : Beside::kOther);
    std::vector<ByteDfa::State> next;
    std::vector<bool> accepts;
    for (std::size_t i = 0; i < sets_.size(); ++i) {
      const auto [set, before] = sets_[i];
      const std::vector<Thread> at_end = closure(set, before, Beside::kNothing);
      accepts.push_back(std::any_of(at_end.begin(), at_end.end(),
                                    [&](const Thread& thread) { return thread.first == accept_ && met(thread.second); }));
      std::map<Beside, std::vector<Thread>> closures;
      for (const unsigned char byte : example_) {
        const Beside after = looks_ ? beside(byte) : Beside::kOther;
        auto known = closures.find(after);
        if (known == closures.end()) known = closures.emplace(after, closure(set, before, after)).first;
        std::set<Thread> reached;
        work(known->second.size());
        for (const auto& [state, demands] : known->second) {
          for (const Nfa::Edge& edge : nfa_.states[static_cast<std::size_t>(state)]) {
            if (edge.kind != Nfa::Edge::Kind::kBytes || byte < edge.bytes.first || byte > edge.bytes.last) continue;
            if (const std::optional<std::int32_t> left = demands_after(demands, byte)) reached.insert({edge.to, *left});
          }
        }
        next.push_back(state_of({reached.begin(), reached.end()}, boundaries_ ? after : Beside::kOther));
      }
    }
    return {class_of_, example_.size(), std::move(next), std::move(accepts)};
  }

 private:
  struct Lookahead {
    ByteDfa automaton;
    bool negative = false;
    std::vector<bool> certain;  // by state: every text from here on matches
  };
  using LookaheadKey = std::pair<std::size_t, Beside>;
  struct Demand {
    const Lookahead* lookahead;
    ByteDfa::State state;
    auto operator<=>(const Demand&) const = default;
  };
  using Thread = std::pair<std::int32_t, std::int32_t>;  // a state of the NFA, and the number of a set of demands

  static void find_certain(Lookahead& lookahead) {
    const ByteDfa all = ByteDfa::any_text();
    const ByteDfa& automaton = lookahead.automaton;
    for (std::size_t first = 0; first < automaton.size(); ++first) {
      std::set<std::pair<ByteDfa::State, ByteDfa::State>> seen = {{static_cast<ByteDfa::State>(first), all.start()}};
      std::vector<std::pair<ByteDfa::State, ByteDfa::State>> open(seen.begin(), seen.end());
      bool certain = true;
      while (certain && !open.empty()) {
        const auto [state, any] = open.back();
        open.pop_back();
        certain = automaton.accepts(state) || !all.accepts(any);
        for (int byte = 0; certain && byte < 256; ++byte) {
          const ByteDfa::State to_any = all.next(any, static_cast<unsigned char>(byte));
          if (to_any == ByteDfa::kDead) continue;
          const ByteDfa::State to = automaton.next(state, static_cast<unsigned char>(byte));
          certain = to != ByteDfa::kDead;
          if (certain && seen.insert({to, to_any}).second) open.emplace_back(to, to_any);
        }
      }
      lookahead.certain.push_back(certain);
    }
  }

  std::int32_t demand_id(std::vector<Demand> demands) {
    const auto [place, added] = demand_index_.try_emplace(std::move(demands), static_cast<std::int32_t>(demands_.size()));
    if (added) demands_.push_back(place->first);
    return place->second;
  }
  // With one more; nullopt: it cannot be met.
  static bool add(std::vector<Demand>& demands, const Lookahead& lookahead, ByteDfa::State state) {
    const bool matches = state != ByteDfa::kDead && lookahead.certain[static_cast<std::size_t>(state)];
    if (state == ByteDfa::kDead || matches) return matches != lookahead.negative;
    demands.push_back({&lookahead, state});
    return true;
  }
  std::optional<std::int32_t> demands_after(std::int32_t id, unsigned char byte) {
    if (id == 0) return 0;
    std::vector<Demand> left;
    for (const Demand& demand : demands_[static_cast<std::size_t>(id)]) {
      if (!add(left, *demand.lookahead, demand.lookahead->automaton.next(demand.state, byte))) return {};
    }
    return sorted_id(std::move(left));
  }
  std::int32_t sorted_id(std::vector<Demand> demands) {
    std::sort(demands.begin(), demands.end());
    demands.erase(std::unique(demands.begin(), demands.end()), demands.end());
    return demand_id(std::move(demands));
  }
  bool met(std::int32_t id) const {
    const std::vector<Demand>& all = demands_[static_cast<std::size_t>(id)];
    return std::all_of(all.begin(), all.end(), [](const Demand& demand) {
      return demand.lookahead->automaton.accepts(demand.state) != demand.lookahead->negative;
    });
  }

  void find_classes() {
    std::array<bool, 257> cut{};
    cut[0] = true;
    for (const auto& edges : nfa_.states) {
      for (const Nfa::Edge& edge : edges) {
        if (edge.kind != Nfa::Edge::Kind::kBytes) continue;
        cut[edge.bytes.first] = true;
        cut[edge.bytes.last + std::size_t{1}] = true;
      }
    }
    for (std::size_t byte = 1; byte < 256; ++byte) {
      const auto here = static_cast<unsigned char>(byte), before = static_cast<unsigned char>(byte - 1);
      if (looks_ && beside(here) != beside(before)) cut[byte] = true;
      for (const auto& [key, lookahead] : lookaheads_) {
        for (std::size_t state = 0; state < lookahead.automaton.size() && !cut[byte]; ++state) {
          const auto at = static_cast<ByteDfa::State>(state);
          cut[byte] = lookahead.automaton.next(at, here) != lookahead.automaton.next(at, before);
        }
      }
    }
    for (std::size_t byte = 0; byte < 256; ++byte) {
      if (cut[byte]) example_.push_back(static_cast<unsigned char>(byte));
      class_of_[byte] = static_cast<std::uint8_t>(example_.size() - 1);
    }
  }

  ByteDfa::State state_of(std::vector<Thread> set, Beside before) {
    if (set.empty()) return ByteDfa::kDead;
    const auto [place, added] = index_.try_emplace({std::move(set), before}, static_cast<ByteDfa::State>(sets_.size()));
    if (added) {
      if (sets_.size() >= ByteDfa::kMaxStates)
        throw ConfigError("regular expression: its automaton has more than 20,000 states");
      sets_.push_back(place->first);
    }
    return place->second;
  }

  bool holds(Assertion assertion, Beside before, Beside after) const {
    const bool possible = settings_.bound == RegexBound::kPossible;
    switch (assertion) {
      case Assertion::kBegin: return before == Beside::kNothing;
      case Assertion::kEnd: return after == Beside::kNothing;
      case Assertion::kEndOrNewline: return after == Beside::kNothing || after == Beside::kNewline;
      default: break;
    }
    if (before == Beside::kUnknown || after == Beside::kUnknown) return possible;
    // \B in the empty text: ECMA 262 finds it, Python before 3.14 does not.
    if (before == Beside::kNothing && after == Beside::kNothing) return possible && assertion == Assertion::kNoBoundary;
    return ((before == Beside::kWord) != (after == Beside::kWord)) == (assertion == Assertion::kBoundary);
  }

  // Sets of many states, many times: such expressions would keep the caller waiting for minutes.
  void work(std::size_t steps) {
    constexpr std::size_t kMostSteps = 50'000'000;
    if ((settings_.steps += steps) > kMostSteps)
      throw ConfigError("regular expression: takes too long to prepare; expected lower counts");
  }

  std::vector<Thread> closure(const std::vector<Thread>& set, Beside before, Beside after) {
    std::set<Thread> seen(set.begin(), set.end());
    std::vector<Thread> open = set;
    while (!open.empty()) {
      work(4);  // an insertion into the set
      const auto [state, demands] = open.back();
      open.pop_back();
      for (const Nfa::Edge& edge : nfa_.states[static_cast<std::size_t>(state)]) {
        Thread to = {edge.to, demands};
        if (edge.kind == Nfa::Edge::Kind::kBytes) continue;
        if (edge.kind == Nfa::Edge::Kind::kAssertion && !holds(edge.assertion, before, after)) continue;
        if (edge.kind == Nfa::Edge::Kind::kLookahead) {
          const Lookahead& lookahead = lookaheads_.at({edge.lookahead, before});
          std::vector<Demand> more = demands_[static_cast<std::size_t>(demands)];
          if (!add(more, lookahead, lookahead.automaton.start())) continue;
          to.second = sorted_id(std::move(more));
        }
        if (seen.insert(to).second) open.push_back(to);
      }
    }
    return {seen.begin(), seen.end()};
  }

  const Nfa& nfa_;
  std::int32_t accept_;
  Settings settings_;
  bool looks_, boundaries_;                  // there are assertions, and some look at letters
  std::map<LookaheadKey, Lookahead> lookaheads_;
  std::map<std::vector<Demand>, std::int32_t> demand_index_;
  std::vector<std::vector<Demand>> demands_;  // by number; 0: none
  std::array<std::uint8_t, 256> class_of_{};
  std::vector<unsigned char> example_;       // of each class
  std::map<std::pair<std::vector<Thread>, Beside>, ByteDfa::State> index_;
  std::vector<std::pair<std::vector<Thread>, Beside>> sets_;
};

// anywhere: any text may come before; more: any text may follow. before: what is before the text.
ByteDfa build(const Node& node, bool anywhere, bool more, Beside before, const Settings& settings) {
  Nfa nfa;
  const std::int32_t start = nfa.add();
  std::int32_t from = start;
  const Ranges all = {{0, kLastCode}};
  if (anywhere) {
    nfa.characters(start, start, all);
    from = nfa.add();
    nfa.free_edge(start, from);
  }
  const std::int32_t accept = nfa.build(node, from);
  if (more) nfa.characters(accept, accept, all);
  return Subsets(nfa, accept, node, settings).run(start, before);
}

}  // namespace

ByteDfa compile_regex(std::string_view expression, RegexScope scope, RegexBound bound, std::size_t* steps) {
  const NodePointer node = Parser(expression, bound).run();
  const bool search = scope == RegexScope::kSearch;
  std::size_t own_steps = 0;
  return build(*node, search, search, Beside::kNothing, {bound, steps == nullptr ? own_steps : *steps});
}

}  // namespace nanochat
