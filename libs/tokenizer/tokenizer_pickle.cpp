#include "tokenizer/tokenizer_pickle.h"

#include <optional>
#include <unordered_set>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/format.h"
#include "core/pickle.h"
#include "tokenizer/tiktoken_file.h"

namespace nanochat {
namespace {

using Value = Pickle::Value;

std::string text(const Value& value, const char* what) {
  const std::string_view found = value.string();
  if (!is_valid_utf8(found)) throw DataError(fmt::format("{} is not UTF-8", what));
  return std::string(found);
}

// The four fields of an Encoding, each once.
struct Fields {
  std::optional<Value> pattern, ranks, specials;
};

Fields fields_of(const Value& root) {
  if (root.kind() != Pickle::Kind::kObject || !root.callable().is_global("tiktoken.core", "Encoding") ||
      root.arguments().size() != 0 || root.size() != 0) {
    throw DataError(fmt::format("holds {}, expected a tiktoken.core.Encoding",
                                root.kind() == Pickle::Kind::kObject ? root.callable().global_name() : root.kind_name()));
  }
  const Value state = root.state();
  if (state.kind() == Pickle::Kind::kString) {
    throw DataError(fmt::format("only names the published encoding \"{}\"; use its rank file instead",
                                replace_invalid_utf8(state.string().substr(0, 60))));
  }
  Fields fields;
  bool has_name = false;
  for (std::size_t i = 0; i < state.size(); ++i) {
    const std::string_view key = state.key(i).string();
    if (key == "name" && !has_name) {
      has_name = true;
    } else if (key == "pat_str" && !fields.pattern) {
      fields.pattern = state.value(i);
    } else if (key == "mergeable_ranks" && !fields.ranks) {
      fields.ranks = state.value(i);
    } else if (key == "special_tokens" && !fields.specials) {
      fields.specials = state.value(i);
    } else {
      throw DataError(fmt::format("has the field \"{}\" twice, or it is none of an Encoding's",
                                  replace_invalid_utf8(key.substr(0, 60))));
    }
  }
  if (!fields.pattern || !fields.ranks || !fields.specials) {
    throw DataError("lacks pat_str, mergeable_ranks or special_tokens");
  }
  return fields;
}

// The keys of a dict by the numbers that are its values, which must be `first`, `first` + 1, ... in any order.
std::vector<Value> by_number(const Value& dict, std::size_t first, const char* what) {
  std::vector<std::optional<Value>> places(dict.size());
  for (std::size_t i = 0; i < places.size(); ++i) {
    const std::int64_t number = dict.value(i).integer();
    const std::uint64_t place = static_cast<std::uint64_t>(number) - first;
    if (number < 0 || place >= places.size() || places[place]) {
      throw DataError(fmt::format("{} has {} for its entry {}, expected the {} numbers from {} on, each once", what, number, i,
                                  places.size(), first));
    }
    places[place] = dict.key(i);
  }
  std::vector<Value> keys;
  keys.reserve(places.size());
  for (const auto& place : places) keys.push_back(*place);
  return keys;
}

}  // namespace

ByteBpeDefinition parse_tokenizer_pickle(std::string_view contents, const std::string& source) {
  try {
    const Pickle pickle(contents);
    const Fields fields = fields_of(pickle.root());
    ByteBpeDefinition definition;
    definition.pattern = text(*fields.pattern, "pat_str");
    if (fields.ranks->size() == 0) throw DataError("mergeable_ranks is empty");
    std::unordered_set<std::string_view> seen;  // in Python the last of two equal keys would stand
    for (const Value& token : by_number(*fields.ranks, 0, "mergeable_ranks")) {
      if (!seen.insert(token.bytes()).second) throw DataError("mergeable_ranks has a token twice");
      definition.tokens.emplace_back(token.bytes());
    }
    for (const Value& name : by_number(*fields.specials, definition.tokens.size(), "special_tokens")) {
      definition.specials.push_back(text(name, "a special token"));
    }
    definition.merges = merges_from_ranks(definition.tokens);
    return definition;
  } catch (const DataError& error) {
    throw TokenizerError(fmt::format("{}: {}", source, error.what()));
  }
}

std::string to_tokenizer_pickle(const ByteBpeTokenizer& tokenizer) {
  require_rank_order(tokenizer);
  PickleWriter writer(4);
  writer.global("tiktoken.core", "Encoding");
  writer.empty_tuple();
  writer.new_object();
  writer.empty_dict();
  writer.mark();
  writer.string("name");
  writer.string("rustbpe");
  writer.string("pat_str");
  writer.string(tokenizer.pattern());
  writer.string("mergeable_ranks");
  writer.empty_dict();
  writer.mark();
  for (TokenId id = 0; id < tokenizer.first_special(); ++id) {
    writer.bytes(tokenizer.token_bytes(id));
    writer.integer(id);
  }
  writer.set_items();
  writer.string("special_tokens");
  writer.empty_dict();
  writer.mark();
  for (const std::string& name : tokenizer.special_tokens()) {
    writer.string(name);
    writer.integer(tokenizer.require_special(name));
  }
  writer.set_items();
  writer.set_items();
  writer.build();
  return writer.finish();
}

}  // namespace nanochat
