#pragma once
// For the JSON constraint only: what schemas ask for, with $ref, allOf, anyOf, oneOf, not, if and their like resolved.
//
// A Conjunction is a set of schemas that a value must match, or must not match. Its shapes are the alternatives: a value
// that matches one of them matches the conjunction. Shapes allow a part of what the schema allows where all of it would
// take too many alternatives (a value that must not match a "format" is never made, for instance), and never more.

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "inference/byte_dfa.h"
#include "inference/internal/json_grammar.h"
#include "inference/internal/schema_index.h"
#include "inference/regex.h"

namespace nanochat {

using Json = nlohmann::ordered_json;

struct SchemaPart {
  const Json* node = nullptr;
  bool negated = false;
  auto operator<=>(const SchemaPart&) const = default;
};
using Conjunction = std::vector<SchemaPart>;      // each once, in the order of the schema; empty: every value

enum JsonType : unsigned {
  kObject = 1,
  kArray = 2,
  kString = 4,
  kInteger = 8,
  kFraction = 16,
  kTrue = 32,
  kFalse = 64,
  kNull = 128,
  kAllTypes = 255
};

struct SchemaShape {
  using Owners = std::vector<const Json*>;          // schemas with unevaluated* that see what this layer evaluates
  struct Items {
    std::vector<SchemaPart> first;
    std::optional<SchemaPart> rest;
    Owners owners;
  };
  struct Properties {
    std::vector<std::pair<std::string, SchemaPart>> named;
    std::vector<std::pair<std::string, SchemaPart>> patterns;
    std::optional<SchemaPart> rest;
    bool explicit_rest = false;                     // a schema for other properties, other than true and false
    Owners owners;
  };
  struct Contains {
    SchemaPart part;
    std::int64_t least = 1;
    std::optional<std::int64_t> most;
  };
  struct Unevaluated {
    const Json* owner;
    SchemaPart part;
    Owners owners;
  };

  unsigned types = kAllTypes;
  unsigned implied = 0;                             // types of the keywords that are there
  bool typed = false;
  std::optional<std::vector<Json>> values;
  NumberRange numbers;
  std::int64_t min_length = 0;
  std::optional<std::int64_t> max_length;
  std::vector<const ByteDfa*> texts, excluded_texts;
  std::vector<std::string> excluded_values;
  std::vector<Items> items;
  std::int64_t min_items = 0;
  std::optional<std::int64_t> max_items;
  bool unique = false;
  std::vector<Contains> contains;
  std::vector<Properties> properties;
  std::set<std::string> required, absent;
  std::vector<std::string> required_order;
  std::int64_t min_properties = 0;
  std::optional<std::int64_t> max_properties;
  std::vector<SchemaPart> property_names;
  std::vector<Unevaluated> unevaluated_items, unevaluated_properties;

  void require(const std::string& name);
  bool constrains_text() const { return !texts.empty() || !excluded_texts.empty() || !excluded_values.empty(); }
};

class SchemaShapes {
 public:
  // imply: values have the types of the keywords that are there where no type is said. A schema may have none but others.
  SchemaShapes(const Json& root, bool imply) : index_(root), imply_(imply) {}

  const SchemaIndex& index() const { return index_; }
  // Without parts that every value matches.
  static Conjunction conjunction(std::vector<SchemaPart> parts);
  // Stays valid. Throws ConfigError with the keyword and its place for what is not supported.
  const std::vector<SchemaShape>& shapes(const Conjunction& all);

  // The types of the values that are made.
  unsigned made_types(const SchemaShape& shape) const;
  Conjunction item(const SchemaShape& shape, std::size_t place) const;
  Conjunction property(const SchemaShape& shape, const std::string& name);
  // Texts that match the shape's keywords of strings.
  ByteDfa text(const SchemaShape& shape);
  // Texts that match the conjunction.
  ByteDfa names(const Conjunction& all);
  const ByteDfa& pattern(const Json& node, const std::string& expression, RegexBound bound);
  // Intersection and difference. Throws ConfigError if those of the whole schema take too long.
  ByteDfa both(const ByteDfa& a, const ByteDfa& b) { return counted(ByteDfa::both(a, b)); }
  ByteDfa without(const ByteDfa& a, const ByteDfa& b) { return counted(ByteDfa::without(a, b)); }

  // Whether a value matches. False, too, for some values that do but that no shape allows.
  bool fits(const Json& value, const Conjunction& all);
  bool fits(const Json& value, const SchemaShape& shape);
  // The values, if there are at most `most`.
  std::optional<std::vector<Json>> finite_values(const Conjunction& all, std::size_t most);

  // A keyword of which a negation was left out; empty: none.
  const std::string& left_out() const { return left_out_; }
  void leave_out(const Json& node, const std::string& what);
  [[noreturn]] void refuse(const Json& node, const std::string& what) const;

 private:
  struct Literal {
    SchemaPart part;
    SchemaShape::Owners owners;
    std::vector<const Json*> path;                  // the schemas of the same value that it comes from
  };
  struct Within {
    const Json* node;
    std::vector<const Json*> path;                  // with the node
    SchemaShape::Owners owners;
  };
  struct Option {
    std::vector<Literal> literals;
    std::function<void(SchemaShape&)> edit;
  };
  using Choice = std::vector<Option>;
  struct Branch;

  void expand(Branch branch, std::vector<SchemaShape>& out);
  void add(Branch& branch, const Literal& literal);
  void keyword(Branch& branch, const Within& within, const std::string& key, const Json& value);
  void one_of(Branch& branch, const Within& within, const Json& schemas);
  Choice negation(const Literal& literal);
  void negate(Choice& choice, const Within& within, const std::string& key, const Json& value);
  bool finish(SchemaShape& shape);
  const Json* target(const Json& node, const std::string& key, const Json& value) const;
  unsigned type_bits(const Json& node, const Json& type) const;
  bool exclude_each_other(const Json& one, const Json& other) const;
  const Json* behind_references(const Json& node) const;
  ByteDfa counted(ByteDfa automaton);

  SchemaIndex index_;
  bool imply_;
  std::map<Conjunction, std::vector<SchemaShape>> known_;
  std::set<Conjunction> open_;                      // being expanded
  std::map<std::pair<std::string, int>, ByteDfa> automata_;
  std::string left_out_;
  std::size_t branches_ = 0, regex_steps_ = 0, text_states_ = 0;  // of all that was asked
  int depth_ = 0;
};

}  // namespace nanochat
