#include "inference/internal/json_grammar.h"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <tuple>

namespace nanochat {
namespace {

constexpr std::int64_t kSpace = 20;
constexpr std::int64_t kDepth = 24;

using Bytes = ByteGrammar::Bytes;

Bytes range(int first, int last) {
  return ByteGrammar::range(static_cast<unsigned char>(first), static_cast<unsigned char>(last));
}

Bytes of(const char* characters) {
  Bytes bytes;
  for (; *characters != '\0'; ++characters) bytes.set(static_cast<unsigned char>(*characters));
  return bytes;
}

}  // namespace

JsonGrammar::Rule JsonGrammar::rule_of(const std::vector<Sequence>& alternatives) {
  const Rule rule = grammar_.add_rule();
  for (const Sequence& alternative : alternatives) grammar_.add_alternative(rule, alternative);
  return rule;
}

JsonGrammar::Rule JsonGrammar::at_most(ByteGrammar::Symbol symbol, std::int64_t most) {
  Rule rule = rule_of({{}});
  for (std::int64_t i = 0; i < most; ++i) rule = rule_of({{}, {symbol, use(rule)}});
  return rule;
}

JsonGrammar::JsonGrammar() {
  space_ = at_most(grammar_.one_of(of(" \n\t\r")), kSpace);
  character_ = make_character();
  characters_ = grammar_.add_rule();
  grammar_.add_alternative(characters_, {});
  grammar_.add_alternative(characters_, {use(character_), use(characters_)});
  const ByteGrammar::Symbol digit = grammar_.one_of(range('0', '9'));
  const Rule digits = at_most(digit, kDigits - 1);
  const Rule whole = rule_of({{byte('0')}, {grammar_.one_of(range('1', '9')), use(digits)}});
  const Rule fraction = rule_of({{}, {byte('.'), digit, use(digits)}});
  const Rule sign = rule_of({{}, {grammar_.one_of(of("+-"))}});
  const Rule exponent = rule_of({{}, {grammar_.one_of(of("eE")), use(sign), digit, use(at_most(digit, 1))}});
  number_ = rule_of({{use(whole), use(fraction), use(exponent)}, {byte('-'), use(whole), use(fraction), use(exponent)}});
}

// One code point: as it is in well-formed UTF-8, or escaped, surrogates in pairs.
JsonGrammar::Rule JsonGrammar::make_character() {
  Bytes plain = range(0x20, 0x7e);
  plain.reset('"');
  plain.reset('\\');
  const auto set = [&](int first, int last) { return grammar_.one_of(range(first, last)); };
  const ByteGrammar::Symbol rest = set(0x80, 0xbf), hex = grammar_.one_of(of("0123456789abcdefABCDEF"));
  const ByteGrammar::Symbol d = grammar_.one_of(of("dD"));
  Bytes not_d = of("0123456789abcefABCEF");
  const Rule escape = rule_of({
      {grammar_.one_of(of("\"\\/bfnrt"))},
      {byte('u'), grammar_.one_of(not_d), hex, hex, hex},
      {byte('u'), d, grammar_.one_of(of("01234567")), hex, hex},
      {byte('u'), d, grammar_.one_of(of("89abAB")), hex, hex, byte('\\'), byte('u'), d, grammar_.one_of(of("cdefCDEF")), hex,
       hex},
  });
  return rule_of({
      {grammar_.one_of(plain)},
      {byte('\\'), use(escape)},
      {set(0xc2, 0xdf), rest},
      {set(0xe0, 0xe0), set(0xa0, 0xbf), rest},
      {set(0xe1, 0xec), rest, rest},
      {set(0xed, 0xed), set(0x80, 0x9f), rest},
      {set(0xee, 0xef), rest, rest},
      {set(0xf0, 0xf0), set(0x90, 0xbf), rest, rest},
      {set(0xf1, 0xf3), rest, rest, rest},
      {set(0xf4, 0xf4), set(0x80, 0x8f), rest, rest},
  });
}

JsonGrammar::Rule JsonGrammar::string(std::int64_t min_length, std::optional<std::int64_t> max_length) {
  Rule rest = characters_;
  if (max_length) rest = at_most(use(character_), *max_length - min_length);
  for (std::int64_t i = 0; i < min_length; ++i) rest = rule_of({{use(character_), use(rest)}});
  return rule_of({{byte('"'), use(rest), byte('"')}});
}

// Numbers with as many digits as both bounds, which have equally many.
JsonGrammar::Rule JsonGrammar::digits_between(const std::string& low, const std::string& high) {
  std::map<std::tuple<std::size_t, bool, bool>, Rule> made;
  const auto make = [&](auto&& self, std::size_t place, bool at_low, bool at_high) -> Rule {
    const auto known = made.find({place, at_low, at_high});
    if (known != made.end()) return known->second;
    std::vector<Sequence> alternatives;
    if (place == low.size()) {
      alternatives.emplace_back();
    } else {
      const char first = at_low ? low[place] : '0', last = at_high ? high[place] : '9';
      std::map<Rule, Bytes> by_rest;
      for (char c = first; c <= last; ++c) {
        by_rest[self(self, place + 1, at_low && c == first, at_high && c == last)].set(static_cast<unsigned char>(c));
      }
      for (const auto& [rest, digits] : by_rest) alternatives.push_back({grammar_.one_of(digits), use(rest)});
    }
    return made[{place, at_low, at_high}] = rule_of(alternatives);
  };
  return make(make, 0, true, true);
}

JsonGrammar::Rule JsonGrammar::magnitude(std::int64_t low, std::int64_t high) {
  std::vector<Rule> by_length;
  std::int64_t begin = 0, end = 9;
  while (begin <= high) {
    const std::int64_t first = std::max(low, begin), last = std::min(high, end);
    if (first <= last) by_length.push_back(digits_between(std::to_string(first), std::to_string(last)));
    begin = end + 1;
    end = end * 10 + 9;
  }
  return any_of(by_length);
}

JsonGrammar::Rule JsonGrammar::integer(std::int64_t minimum, std::int64_t maximum) {
  std::vector<Rule> parts;
  if (maximum >= 0 && minimum <= maximum) parts.push_back(magnitude(std::max<std::int64_t>(minimum, 0), maximum));
  if (minimum < 0 && minimum <= maximum) {
    parts.push_back(rule_of({{byte('-'), use(magnitude(std::max<std::int64_t>(-maximum, 1), -minimum))}}));
  }
  return any_of(parts);
}

JsonGrammar::Rule JsonGrammar::any_literal(std::vector<std::string> texts) {
  std::sort(texts.begin(), texts.end());
  texts.erase(std::unique(texts.begin(), texts.end()), texts.end());
  return literals_between(texts, 0, texts.size(), 0);
}

// texts[first] to texts[last - 1], in order and equal before `offset`, from there on. A tree: an automaton over many
// values then has one way for all that begin alike.
JsonGrammar::Rule JsonGrammar::literals_between(const std::vector<std::string>& texts, std::size_t first, std::size_t last,
                                                std::size_t offset) {
  const std::string &lowest = texts[first], &highest = texts[last - 1];
  std::size_t common = offset;  // what the first and the last have in common, all have
  while (common < lowest.size() && common < highest.size() && lowest[common] == highest[common]) ++common;
  Sequence whole;
  grammar_.append_literal(whole, std::string_view(lowest).substr(offset, common - offset));
  if (last - first > 1) {
    std::vector<Sequence> endings;
    if (lowest.size() == common) {
      endings.emplace_back();
      ++first;
    }
    for (std::size_t end = first; first < last; first = end) {
      while (end < last && texts[end][common] == texts[first][common]) ++end;
      endings.push_back({use(literals_between(texts, first, end, common))});
    }
    whole.push_back(use(rule_of(endings)));
  }
  return rule_of({whole});
}

JsonGrammar::Rule JsonGrammar::any_of(const std::vector<Rule>& rules) {
  std::vector<Sequence> alternatives;
  for (const Rule rule : std::set<Rule>(rules.begin(), rules.end())) alternatives.push_back({use(rule)});
  return rule_of(alternatives);
}

JsonGrammar::Rule JsonGrammar::map_of(Rule value_rule) {
  const Rule pair = rule_of({{use(string(0, {})), byte(':'), use(space_), use(value_rule)}});
  const Rule more = grammar_.add_rule();
  grammar_.add_alternative(more, {use(space_), byte('}')});
  grammar_.add_alternative(more, {byte(','), use(space_), use(pair), use(more)});
  return rule_of({{byte('{'), use(space_), byte('}')}, {byte('{'), use(space_), use(pair), use(more)}});
}

JsonGrammar::Rule JsonGrammar::list_of(Rule item, std::int64_t min_items, std::optional<std::int64_t> max_items) {
  return list_of({}, item, min_items, max_items);
}

JsonGrammar::Rule JsonGrammar::list_of(const std::vector<Rule>& first, std::optional<Rule> rest, std::int64_t min_items,
                                       std::optional<std::int64_t> max_items) {
  if (!rest) max_items = std::min(max_items.value_or(INT64_MAX), static_cast<std::int64_t>(first.size()));
  if (max_items && *max_items < min_items) return nothing();
  const Sequence close = {use(space_), byte(']')};
  const auto next = [&](std::int64_t place, Rule behind) -> Sequence {
    const Rule item = place < static_cast<std::int64_t>(first.size()) ? first[static_cast<std::size_t>(place)] : *rest;
    return {byte(','), use(space_), use(item), use(behind)};
  };
  // What follows after so many items: from the last on back to one.
  const std::int64_t counted = std::max<std::int64_t>(
      max_items.value_or(std::max(min_items, static_cast<std::int64_t>(first.size()))), 1);
  Rule after = grammar_.add_rule();
  grammar_.add_alternative(after, close);
  if (!max_items) grammar_.add_alternative(after, next(counted, after));
  for (std::int64_t items = counted - 1; items >= 1; --items) {
    std::vector<Sequence> alternatives = {next(items, after)};
    if (items >= min_items) alternatives.push_back(close);
    after = rule_of(alternatives);
  }
  std::vector<Sequence> whole;
  if (min_items == 0) whole.push_back({byte('['), use(space_), byte(']')});
  if (!max_items || *max_items > 0) {
    const Rule item = first.empty() ? *rest : first.front();
    whole.push_back({byte('['), use(space_), use(item), use(after)});
  }
  return rule_of(whole);
}

JsonGrammar::Rule JsonGrammar::text(const ByteDfa& automaton) {
  return rule_of({{byte('"'), use(automaton_rule(automaton, true))}});
}
JsonGrammar::Rule JsonGrammar::plain(const ByteDfa& automaton) { return automaton_rule(automaton, false); }

// A rule for each state. Those near an end come first, so that ByteGrammar::finish() needs few rounds.
JsonGrammar::Rule JsonGrammar::automaton_rule(const ByteDfa& automaton, bool in_string) {
  if (automaton.empty()) return nothing();
  std::vector<Rule> rules;
  for (std::size_t state = 0; state < automaton.size(); ++state) rules.push_back(grammar_.add_rule());
  for (const ByteDfa::State state : automaton.by_distance()) {
    const Rule rule = rules[static_cast<std::size_t>(state)];
    if (automaton.accepts(state)) grammar_.add_alternative(rule, in_string ? Sequence{byte('"')} : Sequence{});
    std::map<ByteDfa::State, Bytes> plain_bytes, short_escapes, control_codes[2];
    for (int code = 0; code < 256; ++code) {
      const auto target = automaton.next(state, static_cast<unsigned char>(code));
      if (target == ByteDfa::kDead) continue;
      const std::size_t escape = std::string_view("\"\\\b\f\n\r\t").find(static_cast<char>(code));
      if (!in_string || (code >= 0x20 && escape == std::string_view::npos)) {
        plain_bytes[target].set(static_cast<std::size_t>(code));
      } else if (escape != std::string_view::npos) {
        short_escapes[target].set(static_cast<unsigned char>("\"\\bfnrt"[escape]));
      } else {
        control_codes[code / 16][target].set(static_cast<unsigned char>("0123456789abcdef"[code % 16]));
      }
    }
    for (const auto& [target, bytes] : plain_bytes) {
      grammar_.add_alternative(rule, {grammar_.one_of(bytes), use(rules[static_cast<std::size_t>(target)])});
    }
    for (const auto& [target, bytes] : short_escapes) {
      grammar_.add_alternative(rule, {byte('\\'), grammar_.one_of(bytes), use(rules[static_cast<std::size_t>(target)])});
    }
    for (const int high : {0, 1}) {
      for (const auto& [target, bytes] : control_codes[high]) {
        Sequence sequence;
        grammar_.append_literal(sequence, high == 0 ? "\\u000" : "\\u001");
        sequence.push_back(grammar_.one_of(bytes));
        sequence.push_back(use(rules[static_cast<std::size_t>(target)]));
        grammar_.add_alternative(rule, sequence);
      }
    }
  }
  return rules.front();
}

void JsonGrammar::make_values() {
  if (!values_.empty()) return;
  const Rule flat = any_of({string(0, {}), number_, literal("true"), literal("false"), literal("null")});
  values_.push_back(flat);
  for (std::int64_t depth = 1; depth <= kDepth; ++depth) {
    objects_.push_back(map_of(values_.back()));
    arrays_.push_back(list_of(values_.back(), 0, {}));
    values_.push_back(any_of({flat, objects_.back(), arrays_.back()}));
  }
}

JsonGrammar::Rule JsonGrammar::value() {
  make_values();
  return values_.back();
}
JsonGrammar::Rule JsonGrammar::object() {
  make_values();
  return objects_.back();
}

}  // namespace nanochat
