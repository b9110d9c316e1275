#pragma once
// For json_schema.cpp only: rules for the parts of JSON that do not need a schema.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "inference/byte_dfa.h"
#include "inference/byte_grammar.h"
#include "inference/internal/decimal.h"

namespace nanochat {

// What a number must be. Texts have at most 15 significant digits where there are bounds or multiples, so that no reader's
// rounding moves a number across a bound.
struct NumberRange {
  std::optional<Decimal> low, high;
  bool low_exclusive = false, high_exclusive = false;
  std::vector<Decimal> multiples;            // each above 0
  bool free() const { return !low && !high && multiples.empty(); }
  bool contains(const Decimal& value) const;
};

class JsonGrammar {
 public:
  using Rule = ByteGrammar::Rule;
  using Sequence = ByteGrammar::Sequence;

  JsonGrammar();
  ByteGrammar& grammar() { return grammar_; }

  Rule space() const { return space_; }      // up to kSpace white-space characters
  Rule string(std::int64_t min_length, std::optional<std::int64_t> max_length);
  Rule text(const ByteDfa& automaton);       // strings whose text it matches; each text in one spelling
  Rule plain(const ByteDfa& automaton);      // such texts without quotation marks
  Rule number() const { return number_; }
  Rule integer(std::int64_t minimum, std::int64_t maximum);
  // nullopt if the multiples are too many for a grammar: see kMostResidues.
  std::optional<Rule> number(const NumberRange& range, bool integers_only);
  Rule value();                              // any value, kDepth deep
  Rule object();                             // with any keys and values
  Rule literal(const std::string& text) { return any_literal({text}); }
  Rule any_literal(std::vector<std::string> texts);  // one of these; at least one
  // '{' key ':' value, ... '}' with any keys.
  Rule map_of(Rule value_rule);
  Rule list_of(Rule item, std::int64_t min_items, std::optional<std::int64_t> max_items);
  // The first items are those of `first`, all others `rest`; without `rest`, there are no others.
  Rule list_of(const std::vector<Rule>& first, std::optional<Rule> rest, std::int64_t min_items,
               std::optional<std::int64_t> max_items);
  Rule nothing() { return grammar_.add_rule(); }  // matches no text
  // One rule that matches what any of these do.
  Rule any_of(const std::vector<Rule>& rules);

  static constexpr std::int64_t kDigits = 15;
  static constexpr std::int64_t kLargest = 999'999'999'999'999;
  static constexpr std::int64_t kMostResidues = 300, kMostMultiples = 2000;

  ByteGrammar::Symbol byte(char c) {
    return grammar_.one_of(ByteGrammar::range(static_cast<unsigned char>(c), static_cast<unsigned char>(c)));
  }

 private:
  ByteGrammar::Symbol use(Rule rule) const { return ByteGrammar::use(rule); }
  Rule rule_of(const std::vector<Sequence>& alternatives);
  Rule make_character();
  Rule at_most(ByteGrammar::Symbol symbol, std::int64_t most);  // zero or more
  Rule magnitude(std::int64_t low, std::int64_t high);          // non-negative integers
  Rule digits_between(const std::string& low, const std::string& high);
  Rule automaton_rule(const ByteDfa& automaton, bool in_string);
  struct Fixed;                                                 // numbers with a fixed place of the point
  Rule fixed_digits(Fixed& fixed, std::size_t place, std::size_t digits, const std::string& low, const std::string& high,
                    bool at_low, bool at_high, std::int64_t residue);
  std::optional<Rule> fixed_point(std::int64_t low, std::int64_t high, std::int64_t step, std::int64_t scale);
  Rule signed_parts(std::vector<Rule> positive, std::vector<Rule> negative);
  Rule literals_between(const std::vector<std::string>& texts, std::size_t first, std::size_t last, std::size_t offset);
  void make_values();

  ByteGrammar grammar_;
  Rule space_ = 0, character_ = 0, characters_ = 0, number_ = 0;
  std::vector<Rule> values_, objects_, arrays_;  // by depth; filled on first use
};

}  // namespace nanochat
