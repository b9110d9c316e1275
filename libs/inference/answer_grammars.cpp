#include "inference/answer_grammars.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "inference/internal/json_grammar.h"
#include "inference/internal/pattern_scanner.h"
#include "inference/regex.h"
#include "inference/utf8_ranges.h"

namespace nanochat {
namespace {

using Rule = ByteGrammar::Rule;
using Sequence = ByteGrammar::Sequence;

class GbnfParser : private PatternScanner {
 public:
  explicit GbnfParser(std::string_view text) : PatternScanner(text) {}

  ByteGrammar run() {
    if (!well_formed()) throw ConfigError("grammar: malformed UTF-8");
    skip(true);
    while (!done()) {
      const std::string name = identifier();
      skip(false);
      if (!take("::=")) refuse("expected \"::=\"");
      skip(true);
      const Rule rule = rule_of(name);
      if (!defined_.insert(name).second) refuse(fmt::format("the rule \"{}\" is defined twice", name));
      alternatives(rule, 0);
      skip(true);
    }
    for (const auto& [name, rule] : rules_) {
      if (defined_.count(name) == 0) throw ConfigError(fmt::format("grammar: the rule \"{}\" is used and not defined", name));
    }
    if (rules_.count("root") == 0) throw ConfigError("grammar: has no rule \"root\"");
    check_left_recursion();
    grammar_.finish(rules_.at("root"));
    return std::move(grammar_);
  }

 private:
  static constexpr int kDeepest = 200;

  [[noreturn]] void refuse(std::string_view what) const {
    const auto line = 1 + std::count(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(at_), '\n');
    throw ConfigError(fmt::format("grammar, line {}: {}", line, what));
  }
  // White space and comments. Without `lines`, not past the end of a line.
  void skip(bool lines) {
    while (!done()) {
      const char c = text_[at_];
      if (c == '#') {
        while (!done() && text_[at_] != '\n') ++at_;
      } else if (c == '\n' || c == '\r') {
        if (!lines) return;
        ++at_;
      } else if (c == ' ' || c == '\t') {
        ++at_;
      } else {
        return;
      }
    }
  }
  static bool in_name(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
  }
  std::string identifier() {
    const std::size_t begin = at_;
    while (!done() && in_name(text_[at_])) ++at_;
    if (at_ == begin) refuse("expected the name of a rule");
    return std::string(text_.substr(begin, at_ - begin));
  }
  Rule rule_of(const std::string& name) {
    const auto [place, added] = rules_.try_emplace(name, 0);
    if (added) place->second = add_rule();
    return place->second;
  }
  Rule add_rule() {
    written_.emplace_back();
    return grammar_.add_rule();
  }
  void add(Rule rule, const Sequence& sequence) {
    grammar_.add_alternative(rule, sequence);
    written_[static_cast<std::size_t>(rule)].push_back(sequence);
  }

  void alternatives(Rule rule, int depth) {
    if (depth > kDeepest) refuse("groups are nested more than 200 deep");
    do {
      skip(true);
      Sequence sequence;
      while (!done() && !next_is("|") && !next_is(")")) {
        // At the top, a line that begins a rule ends the one before.
        if (depth == 0 && starts_rule()) break;
        sequence.push_back(item(depth));
        skip(true);
      }
      add(rule, sequence);
    } while (take("|"));
  }
  bool starts_rule() const {
    std::size_t place = at_;
    while (place < text_.size() && in_name(text_[place])) ++place;
    if (place == at_) return false;
    while (place < text_.size() && (text_[place] == ' ' || text_[place] == '\t')) ++place;
    return text_.substr(place).starts_with("::=");
  }

  ByteGrammar::Symbol item(int depth) {
    Rule rule = 0;
    if (take("(")) {
      rule = add_rule();
      alternatives(rule, depth + 1);
      if (!take(")")) refuse("a '(' without ')'");
    } else if (take("\"")) {
      rule = add_rule();
      Sequence sequence;
      while (!take("\"")) append(sequence, escaped_character());
      add(rule, sequence);
    } else if (take("[")) {
      rule = characters();
    } else if (take(".")) {
      rule = of_ranges({{0, kLastCodePoint}});
    } else {
      rule = rule_of(identifier());
    }
    return ByteGrammar::use(repeated(rule));
  }

  Rule repeated(Rule rule) {
    for (;;) {
      std::int64_t least = 0;
      std::optional<std::int64_t> most;
      if (take("*")) {
      } else if (take("+")) {
        least = 1;
      } else if (take("?")) {
        most = 1;
      } else if (take("{")) {
        const auto low = count();
        const bool comma = take(",");
        const auto high = comma ? count() : low;
        if (!take("}") || (!low && !high)) refuse("expected {n}, {n,} or {n,m}");
        least = low.value_or(0);
        most = high;
        if (least > kMostRepeats || most.value_or(0) > kMostRepeats) refuse("counts above 4096 are not supported");
        if (most && *most < least) refuse("the counts of a repetition are in the wrong order");
      } else {
        return rule;
      }
      const ByteGrammar::Symbol one = ByteGrammar::use(rule);
      Rule rest = add_rule();
      add(rest, {});
      if (!most) add(rest, {one, ByteGrammar::use(rest)});
      for (std::int64_t i = least; most && i < *most; ++i) {
        const Rule more = add_rule();
        add(more, {});
        add(more, {one, ByteGrammar::use(rest)});
        rest = more;
      }
      for (std::int64_t i = 0; i < least; ++i) {
        const Rule more = add_rule();
        add(more, {one, ByteGrammar::use(rest)});
        rest = more;
      }
      rule = rest;
    }
  }

  void append(Sequence& sequence, std::uint32_t code) {
    const auto ranges = utf8_ranges(code, code);
    if (ranges.empty()) refuse("a surrogate is not a character");
    for (const ByteRange& byte : ranges.front()) sequence.push_back(grammar_.one_of(ByteGrammar::range(byte.first, byte.last)));
  }

  // A character of a literal or a class.
  std::uint32_t escaped_character() {
    if (done() || text_[at_] == '\n') refuse("a literal or class does not end");
    if (!take("\\")) return character();
    if (done()) refuse("a backslash at the end");
    const char letter = text_[at_++];
    switch (letter) {
      case 'n': return '\n';
      case 'r': return '\r';
      case 't': return '\t';
      case 'x': return code_point(2);
      case 'u': return code_point(4);
      case 'U': return code_point(8);
      case '"':
      case '\\':
      case '[':
      case ']':
      case '-':
      case '^': return static_cast<unsigned char>(letter);
      default: refuse(fmt::format("the escape \\{} is not supported", letter));
    }
  }
  std::uint32_t code_point(std::size_t digits) {
    const std::optional<std::uint32_t> code = hex(digits);
    if (!code) refuse(fmt::format("expected {} hexadecimal digits", digits));
    if (*code > kLastCodePoint) refuse("a code point is above U+10FFFF");
    return *code;
  }

  Rule characters() {
    const bool negate = take("^");
    CodeRanges ranges;
    while (!take("]")) {
      const std::uint32_t first = escaped_character();
      std::uint32_t last = first;
      if (next_is("-") && !next_is("-]")) {
        take("-");
        last = escaped_character();
      }
      if (last < first) refuse("a range of characters is in the wrong order");
      ranges.emplace_back(first, last);
    }
    return of_ranges(negate ? complement(std::move(ranges)) : merged(std::move(ranges)));
  }
  Rule of_ranges(const CodeRanges& ranges) {
    const Rule rule = add_rule();
    for (const auto& [first, last] : ranges) {
      for (const auto& bytes : utf8_ranges(first, last)) {
        Sequence sequence;
        for (const ByteRange& byte : bytes) sequence.push_back(grammar_.one_of(ByteGrammar::range(byte.first, byte.last)));
        add(rule, sequence);
      }
    }
    return rule;
  }

  // A rule that comes back to itself before it has read a byte would never end.
  void check_left_recursion() const {
    const std::size_t size = written_.size();
    std::vector<bool> nullable(size, false);
    for (bool changed = true; changed;) {
      changed = false;
      for (std::size_t rule = 0; rule < size; ++rule) {
        const bool now = std::any_of(written_[rule].begin(), written_[rule].end(), [&](const Sequence& sequence) {
          return std::all_of(sequence.begin(), sequence.end(), [&](const ByteGrammar::Symbol& symbol) {
            return symbol.is_rule && nullable[static_cast<std::size_t>(symbol.index)];
          });
        });
        if (now && !nullable[rule]) nullable[rule] = changed = true;
      }
    }
    // What a rule may come to before it reads a byte. The last symbol of an alternative needs no return to it.
    struct Edge {
      std::size_t to;
      bool returns;
    };
    std::vector<std::vector<Edge>> edges(size);
    for (std::size_t rule = 0; rule < size; ++rule) {
      for (const Sequence& sequence : written_[rule]) {
        for (std::size_t i = 0; i < sequence.size() && sequence[i].is_rule; ++i) {
          edges[rule].push_back({static_cast<std::size_t>(sequence[i].index), i + 1 < sequence.size()});
          if (!nullable[static_cast<std::size_t>(sequence[i].index)]) break;
        }
      }
    }
    // Rules that come to each other are of one group: Tarjan's algorithm, with a stack of its own.
    std::vector<std::size_t> number(size, 0), lowest(size, 0), group(size, size), stack;
    std::size_t count = 0, groups = 0;
    for (std::size_t root = 0; root < size; ++root) {
      if (number[root] != 0) continue;
      std::vector<std::pair<std::size_t, std::size_t>> open = {{root, 0}};
      while (!open.empty()) {
        auto& [rule, edge] = open.back();
        if (edge == 0) {
          number[rule] = lowest[rule] = ++count;
          stack.push_back(rule);
        }
        if (edge < edges[rule].size()) {
          const std::size_t to = edges[rule][edge++].to;
          if (number[to] == 0) {
            open.emplace_back(to, 0);
          } else if (group[to] == size) {
            lowest[rule] = std::min(lowest[rule], number[to]);
          }
          continue;
        }
        if (lowest[rule] == number[rule]) {
          for (std::size_t last = size; last != rule; stack.pop_back()) {
            last = stack.back();
            group[last] = groups;
          }
          ++groups;
        }
        const std::size_t low = lowest[rule];
        open.pop_back();
        if (!open.empty()) lowest[open.back().first] = std::min(lowest[open.back().first], low);
      }
    }
    for (std::size_t rule = 0; rule < size; ++rule) {
      for (const Edge& edge : edges[rule]) {
        if (edge.returns && group[rule] == group[edge.to])
          throw ConfigError("grammar: a rule begins with itself (left recursion), which is not supported");
      }
    }
  }

  ByteGrammar grammar_;
  std::map<std::string, Rule> rules_;
  std::set<std::string> defined_;
  std::vector<std::vector<Sequence>> written_;  // by rule, to look for left recursion
};

}  // namespace

ByteGrammar regex_grammar(std::string_view expression) {
  JsonGrammar grammar;
  const Rule rule = grammar.plain(compile_regex(expression, RegexScope::kWhole));
  grammar.grammar().finish(rule);
  return std::move(grammar.grammar());
}

ByteGrammar choice_grammar(const std::vector<std::string>& choices) {
  if (choices.empty()) throw ConfigError("choice: found no texts, expected at least 1");
  for (const std::string& choice : choices) {
    if (choice.empty()) throw ConfigError("choice: found an empty text, expected at least 1 character");
  }
  JsonGrammar grammar;
  const Rule rule = grammar.any_literal(choices);
  grammar.grammar().finish(rule);
  return std::move(grammar.grammar());
}

ByteGrammar gbnf_grammar(std::string_view text) { return GbnfParser(text).run(); }

}  // namespace nanochat
