#include "inference/json_schema.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "inference/internal/json_grammar.h"
#include "inference/internal/schema_shapes.h"

namespace nanochat {
namespace {

using Rule = ByteGrammar::Rule;

constexpr int kDeepest = 256;  // schemas within schemas, references followed

// One part of a JSON pointer in a URI: "%20" and then "~1" and "~0" stand for other characters. nullopt: it is malformed.
std::optional<std::string> pointer_part(std::string_view written) {
  std::string decoded, part;
  for (std::size_t i = 0; i < written.size(); ++i) {
    if (written[i] != '%') {
      decoded += written[i];
      continue;
    }
    unsigned char byte = 0;
    if (i + 2 >= written.size()) return std::nullopt;
    const auto [end, error] = std::from_chars(written.data() + i + 1, written.data() + i + 3, byte, 16);
    if (error != std::errc() || end != written.data() + i + 3) return std::nullopt;
    decoded += static_cast<char>(byte);
    i += 2;
  }
  for (std::size_t i = 0; i < decoded.size(); ++i) {
    if (decoded[i] != '~') {
      part += decoded[i];
      continue;
    }
    if (++i == decoded.size() || (decoded[i] != '0' && decoded[i] != '1')) return std::nullopt;
    part += decoded[i] == '0' ? '~' : '/';
  }
  return part;
}

// Writes the shapes of a schema as rules of a grammar.
class Compiler {
 public:
  Compiler(const Json& root, bool imply) : shapes_(root, imply) {}

  const std::string& left_out() const { return shapes_.left_out(); }
  ByteGrammar run() {
    const Json& root = shapes_.index().root();
    const Rule start = rule(SchemaShapes::conjunction({{&root, false}}));
    json_.grammar().finish(start);
    return std::move(json_.grammar());
  }

 private:
  // A rule is named before it is written, so that a schema may hold itself.
  Rule rule(const Conjunction& all) {
    if (all.empty()) return json_.value();
    const auto [place, added] = rules_.try_emplace(all, 0);
    if (!added) return place->second;
    const Rule made = place->second = json_.grammar().add_rule();
    const Json* outer = std::exchange(here_, all.front().node);
    if (++depth_ > kDeepest)
      shapes_.refuse(*here_, fmt::format("schemas are nested more than {} deep, references included", kDeepest));
    std::set<Rule> parts;
    for (const SchemaShape& shape : shapes_.shapes(all)) write(shape, parts);
    for (const Rule part : parts) json_.grammar().add_alternative(made, {ByteGrammar::use(part)});
    --depth_;
    here_ = outer;
    return made;
  }

  void write(const SchemaShape& shape, std::set<Rule>& parts) {
    if (shape.values) {
      std::vector<std::string> texts;
      for (const Json& value : *shape.values) texts.push_back(value.dump());
      parts.insert(json_.any_literal(std::move(texts)));
      return;
    }
    const unsigned types = shapes_.made_types(shape);
    if ((types & kTrue) != 0) parts.insert(word("true"));
    if ((types & kFalse) != 0) parts.insert(word("false"));
    if ((types & kNull) != 0) parts.insert(word("null"));
    if ((types & kString) != 0) {
      parts.insert(shape.constrains_text() ? constrained_text(shape) : string(shape.min_length, shape.max_length));
    }
    if ((types & kInteger) != 0) {  // numbers with fractions only are not made
      const std::optional<Rule> number = json_.number(shape.numbers, (types & kFraction) == 0);
      if (!number) {
        shapes_.refuse(*here_,
                       fmt::format("keyword 'multipleOf' is supported with up to {} beside zeros at the end, or where the "
                                   "bounds leave at most {} multiples",
                                   JsonGrammar::kMostResidues, JsonGrammar::kMostMultiples));
      }
      parts.insert(*number);
    }
    if ((types & kArray) != 0) parts.insert(shape.unique ? unique_array(shape) : array(shape));
    if ((types & kObject) != 0) parts.insert(object(shape));
  }

  Rule word(const char* text) {
    const auto [place, added] = words_.try_emplace(text, 0);
    if (added) place->second = json_.literal(text);
    return place->second;
  }

  Rule string(std::int64_t low, std::optional<std::int64_t> high) {
    if (high && *high < low) return json_.nothing();
    const auto [place, added] = strings_.try_emplace({low, high.value_or(-1)}, 0);
    if (added) place->second = json_.string(low, high);
    return place->second;
  }

  Rule constrained_text(const SchemaShape& shape) {
    try {
      return json_.text(shapes_.text(shape));
    } catch (const ConfigError& error) {
      shapes_.refuse(*here_, fmt::format("keyword 'pattern' or 'format' with what stands beside it: {}", error.what()));
    }
  }

  // ------------------------------------------------------------------------------------------------- arrays

  static std::size_t first_items(const SchemaShape& shape) {
    std::size_t size = 0;
    for (const SchemaShape::Items& layer : shape.items) size = std::max(size, layer.first.size());
    return size;
  }
  // Whether items may follow those of prefixItems: where the schema says what they are, or that there are more.
  static bool more_items(const SchemaShape& shape) {
    const std::size_t first = first_items(shape);
    return first == 0 || shape.min_items > static_cast<std::int64_t>(first) ||
           std::any_of(shape.items.begin(), shape.items.end(),
                       [](const SchemaShape::Items& layer) { return layer.rest.has_value(); });
  }

  Rule array(const SchemaShape& shape) {
    const std::size_t declared = first_items(shape);
    std::vector<SchemaPart> others;      // what items must not match, apart from those that are counted
    for (const SchemaShape::Contains& one : shape.contains) {
      if (one.most && *one.most < one.least) return json_.nothing();
      if (one.most) others.push_back({one.part.node, !one.part.negated});
    }
    std::size_t needed = 0;
    for (const SchemaShape::Contains& one : shape.contains) needed += static_cast<std::size_t>(one.least);
    const auto with = [](Conjunction all, const std::vector<SchemaPart>& more) {
      all.insert(all.end(), more.begin(), more.end());
      return SchemaShapes::conjunction(std::move(all));
    };
    std::vector<Rule> lists;
    for (const std::size_t begin : std::set<std::size_t>{0, needed == 0 ? 0 : declared}) {
      std::vector<std::vector<SchemaPart>> more(std::max(declared, begin + needed), others);
      std::size_t place = begin;
      for (const SchemaShape::Contains& one : shape.contains) {
        for (std::int64_t i = 0; i < one.least; ++i, ++place) {
          std::erase(more[place], SchemaPart{one.part.node, !one.part.negated});
          more[place].push_back(one.part);
        }
      }
      std::vector<Rule> first;
      for (std::size_t i = 0; i < more.size(); ++i) first.push_back(rule(with(shapes_.item(shape, i), more[i])));
      std::optional<Rule> rest;
      if (more_items(shape)) rest = rule(with(shapes_.item(shape, declared), others));
      const std::int64_t least = std::max(shape.min_items, needed == 0 ? 0 : static_cast<std::int64_t>(begin + needed));
      lists.push_back(json_.list_of(first, rest, least, shape.max_items));
    }
    return lists.size() == 1 ? lists.front() : json_.any_of(lists);
  }

  // Items of few values. Up to kMostFree of them come in any order, more in the order of the schema.
  Rule unique_array(const SchemaShape& shape) {
    constexpr std::size_t kMostFree = 8, kMostValues = 500;
    const std::size_t declared = first_items(shape);
    const std::int64_t most = shape.max_items.value_or(INT64_MAX);
    if (most <= 1 || (!more_items(shape) && declared <= 1)) return array(shape);
    if (!shape.contains.empty()) shapes_.refuse(*here_, "keyword 'contains' beside 'uniqueItems' is not supported");
    std::vector<Json> all;
    std::vector<std::set<std::size_t>> allowed;  // by place, of `all`
    for (std::size_t place = 0; place < declared + (more_items(shape) ? 1 : 0); ++place) {
      const std::optional<std::vector<Json>> values = shapes_.finite_values(shapes_.item(shape, place), kMostValues);
      if (!values) {
        shapes_.refuse(*here_,
                       "keyword 'uniqueItems' is supported for items with few values (enum, const, boolean, null, small "
                       "ranges of integers)");
      }
      allowed.emplace_back();
      for (const Json& value : *values) {
        const auto known = std::find(all.begin(), all.end(), value);
        allowed.back().insert(static_cast<std::size_t>(known - all.begin()));
        if (known == all.end()) all.push_back(value);
      }
    }
    const bool in_order = all.size() > kMostFree;
    if (in_order && (declared > 0 || all.size() > kMostValues))
      shapes_.refuse(*here_,
                     fmt::format("keyword 'uniqueItems' beside 'prefixItems' is supported for up to {} values", kMostFree));
    std::vector<Rule> literals;
    for (const Json& value : all) literals.push_back(json_.literal(value.dump()));
    ByteGrammar& grammar = json_.grammar();
    // After so many items: with `used` as a set of bits, or as the number of values that are passed.
    std::map<std::pair<std::int64_t, std::size_t>, Rule> made;
    const std::int64_t cap = shape.max_items || shape.min_items > 0 ? INT64_MAX : 1;  // counts that need to be told apart
    const auto after = [&](auto&& self, std::int64_t items, std::size_t used) -> Rule {
      const auto [place, added] = made.try_emplace({std::min(items, in_order ? cap : INT64_MAX), used}, 0);
      if (!added) return place->second;
      const Rule made_rule = place->second = grammar.add_rule();
      const auto at = static_cast<std::size_t>(items);
      std::vector<ByteGrammar::Sequence> alternatives;
      if (items >= shape.min_items) alternatives.push_back({ByteGrammar::use(json_.space()), json_.byte(']')});
      for (std::size_t i = in_order ? used : 0; i < all.size() && items < most; ++i) {
        if (!in_order && ((used >> i) & 1U) != 0) continue;
        if (!more_items(shape) && at >= declared) break;
        if (allowed[std::min(at, allowed.size() - 1)].count(i) == 0) continue;
        ByteGrammar::Sequence next;
        if (items > 0) next.push_back(json_.byte(','));
        next.push_back(ByteGrammar::use(json_.space()));
        next.push_back(ByteGrammar::use(literals[i]));
        next.push_back(ByteGrammar::use(self(self, items + 1, in_order ? i + 1 : used | (std::size_t{1} << i))));
        alternatives.push_back(std::move(next));
      }
      for (const auto& alternative : alternatives) grammar.add_alternative(made_rule, alternative);
      return made_rule;
    };
    const Rule whole = grammar.add_rule();
    grammar.add_alternative(whole, {json_.byte('['), ByteGrammar::use(after(after, 0, 0))});
    return whole;
  }

  // ------------------------------------------------------------------------------------------------- objects

  struct Declared {
    std::string name;
    bool required;
  };
  struct FreeKeys {
    std::optional<ByteDfa> keys;  // nullopt: any text
    Rule value;
  };

  Rule object(const SchemaShape& shape) {
    if (shape.properties.empty() && shape.required.empty() && shape.absent.empty() && shape.property_names.empty() &&
        shape.min_properties == 0 && !shape.max_properties)
      return json_.object();
    const Conjunction names = SchemaShapes::conjunction(shape.property_names);
    std::vector<Declared> declared;
    std::set<std::string> known;
    const auto declare = [&](const std::string& name) {
      if (!known.insert(name).second || shape.absent.count(name) != 0 || !shapes_.fits(Json(name), names)) return;
      declared.push_back({name, shape.required.count(name) != 0});
    };
    for (const SchemaShape::Properties& layer : shape.properties) {
      for (const auto& [name, part] : layer.named) declare(name);
    }
    for (const std::string& name : shape.required_order) declare(name);
    const auto required = static_cast<std::size_t>(std::count_if(declared.begin(), declared.end(),
                                                                 [](const Declared& one) { return one.required; }));
    if (required < shape.required.size()) return json_.nothing();
    known.insert(shape.absent.begin(), shape.absent.end());
    return sequence(shape, declared, free_keys(shape, known, declared.size(), names));
  }

  // Keys that are not declared: where there is a schema for them, where nothing is declared, or where they are needed.
  std::vector<FreeKeys> free_keys(const SchemaShape& shape, const std::set<std::string>& known, std::size_t declared,
                                  const Conjunction& names) {
    constexpr std::size_t kMostPatterns = 4;
    std::vector<std::string> patterns;
    bool any = declared == 0 || shape.min_properties > static_cast<std::int64_t>(declared);
    for (const SchemaShape::Properties& layer : shape.properties) {
      any = any || layer.explicit_rest;
      for (const auto& [expression, part] : layer.patterns) {
        if (std::find(patterns.begin(), patterns.end(), expression) == patterns.end()) patterns.push_back(expression);
      }
    }
    if (patterns.size() > kMostPatterns)
      shapes_.refuse(*here_, fmt::format("keyword 'patternProperties' is supported with up to {} patterns", kMostPatterns));
    std::vector<FreeKeys> out;
    std::optional<ByteDfa> all;
    if (!known.empty() || !names.empty() || !patterns.empty() || shape.min_properties > 1) {
      all = names.empty() ? ByteDfa::any_text() : shapes_.names(names);
      if (!known.empty()) all = shapes_.without(*all, ByteDfa::texts({known.begin(), known.end()}));
    }
    for (std::size_t matched = any ? 0 : 1; matched < std::size_t{1} << patterns.size(); ++matched) {
      const auto matches = [&](const std::string& expression) {
        const auto place = std::find(patterns.begin(), patterns.end(), expression) - patterns.begin();
        return ((matched >> place) & 1U) != 0;
      };
      std::vector<SchemaPart> parts;
      for (const SchemaShape::Properties& layer : shape.properties) {
        bool found = false;
        for (const auto& [expression, part] : layer.patterns) {
          if (!matches(expression)) continue;
          parts.push_back(part);
          found = true;
        }
        if (!found && layer.rest) parts.push_back(*layer.rest);
      }
      const bool never = std::any_of(parts.begin(), parts.end(), [](const SchemaPart& part) {
        return part.node->is_boolean() && part.node->get<bool>() == part.negated;
      });
      if (never) continue;
      std::optional<ByteDfa> keys = all;
      for (const std::string& expression : patterns) {
        const Json& node = *here_;
        keys = matches(expression) ? shapes_.both(*keys, shapes_.pattern(node, expression, RegexBound::kCertain))
                                   : shapes_.without(*keys, shapes_.pattern(node, expression, RegexBound::kPossible));
      }
      if (keys && keys->empty()) continue;
      out.push_back({std::move(keys), rule(SchemaShapes::conjunction(std::move(parts)))});
    }
    return out;
  }

  // Declared properties in their order, then free keys. From the last on back: what may follow after so many properties.
  Rule sequence(const SchemaShape& shape, const std::vector<Declared>& declared, const std::vector<FreeKeys>& free) {
    constexpr std::int64_t kMostCounted = 64, kUnlimited = INT64_MAX;
    ByteGrammar& grammar = json_.grammar();
    const auto size = static_cast<std::int64_t>(declared.size());
    const std::int64_t least = shape.min_properties;
    std::int64_t most = shape.max_properties.value_or(kUnlimited);
    if (free.empty() && most >= size) most = kUnlimited;
    if (most != kUnlimited) most = std::min(most, std::max(size + kMostCounted, least));
    if (most < least) return json_.nothing();
    const std::int64_t counted = std::max<std::int64_t>({1, least, most == kUnlimited ? 0 : most});
    const ByteGrammar::Symbol space = ByteGrammar::use(json_.space());
    const auto begin = [&](std::int64_t count) {
      return count == 0 ? ByteGrammar::Sequence{space} : ByteGrammar::Sequence{json_.byte(','), space};
    };
    const auto rule_at = [&](const std::vector<Rule>& rules, std::int64_t count) {
      return ByteGrammar::use(rules[static_cast<std::size_t>(std::min(count, counted))]);
    };
    std::vector<Rule> after;
    for (std::int64_t count = 0; count <= counted; ++count) after.push_back(grammar.add_rule());
    std::map<std::pair<std::size_t, std::int64_t>, Rule> keys;
    for (std::int64_t count = counted; count >= 0; --count) {
      const Rule here = after[static_cast<std::size_t>(count)];
      if (count >= least) grammar.add_alternative(here, {space, json_.byte('}')});
      if (count >= most) continue;
      for (std::size_t i = 0; i < free.size(); ++i) {
        // A key that is needed differs in its first byte from the other needed ones: a key twice would count once.
        const bool distinct = least > 1 && count < least;
        const auto [key, added] = keys.try_emplace({i, distinct ? count : -1}, 0);
        if (added) {
          key->second = !free[i].keys ? string(0, {})
                        : distinct    ? json_.text(free[i].keys->with_first_byte(static_cast<std::size_t>(count),
                                                                                 static_cast<std::size_t>(least)))
                                      : json_.text(*free[i].keys);
        }
        ByteGrammar::Sequence pair = begin(count);
        pair.insert(pair.end(), {ByteGrammar::use(key->second), json_.byte(':'), space, ByteGrammar::use(free[i].value),
                                 rule_at(after, count + 1)});
        grammar.add_alternative(here, pair);
      }
    }
    for (auto property = declared.rbegin(); property != declared.rend(); ++property) {
      ByteGrammar::Sequence written;
      grammar.append_literal(written, Json(property->name).dump() + ":");
      written.insert(written.end(), {space, ByteGrammar::use(rule(shapes_.property(shape, property->name)))});
      const Rule pair = grammar.add_rule();
      grammar.add_alternative(pair, written);
      std::vector<Rule> before;
      for (std::int64_t count = 0; count <= counted; ++count) {
        const Rule here = before.emplace_back(grammar.add_rule());
        if (count < most) {
          ByteGrammar::Sequence next = begin(count);
          next.insert(next.end(), {ByteGrammar::use(pair), rule_at(after, count + 1)});
          grammar.add_alternative(here, next);
        }
        if (!property->required) grammar.add_alternative(here, {rule_at(after, count)});
      }
      after = std::move(before);
    }
    const Rule whole = grammar.add_rule();
    grammar.add_alternative(whole, {json_.byte('{'), ByteGrammar::use(after.front())});
    return whole;
  }

  SchemaShapes shapes_;
  JsonGrammar json_;
  std::map<Conjunction, Rule> rules_;
  std::map<std::string, Rule> words_;
  std::map<std::pair<std::int64_t, std::int64_t>, Rule> strings_;
  const Json* here_ = nullptr;  // for messages
  int depth_ = 0;
};

}  // namespace

const Json* find_reference(const Json& root, std::string_view reference) {
  if (!reference.starts_with('#')) return nullptr;
  reference.remove_prefix(1);
  const Json* place = &root;
  while (!reference.empty()) {
    if (reference[0] != '/') return nullptr;
    reference.remove_prefix(1);
    const std::size_t end = std::min(reference.find('/'), reference.size());
    const std::optional<std::string> part = pointer_part(reference.substr(0, end));
    reference.remove_prefix(end);
    if (!part) return nullptr;
    if (place->is_object()) {
      const auto member = place->find(*part);
      if (member == place->end()) return nullptr;
      place = &*member;
    } else if (place->is_array()) {
      std::size_t index = 0;
      const auto [last, error] = std::from_chars(part->data(), part->data() + part->size(), index);
      const bool number = error == std::errc() && last == part->data() + part->size() &&
                          (part->size() == 1 || part->front() != '0');
      if (!number || index >= place->size()) return nullptr;
      place = &(*place)[index];
    } else {
      return nullptr;
    }
  }
  return place;
}

ByteGrammar json_grammar(const Json& schema) {
  // First with values of the types that the keywords speak of; {"contains": false} holds for others only.
  ByteGrammar grammar = Compiler(schema, true).run();
  if (!grammar.empty()) return grammar;
  Compiler others(schema, false);
  grammar = others.run();
  if (grammar.empty() && !others.left_out().empty()) throw ConfigError(others.left_out());
  return grammar;
}

ByteGrammar json_object_grammar() {
  JsonGrammar json;
  json.grammar().finish(json.object());
  return std::move(json.grammar());
}

}  // namespace nanochat
