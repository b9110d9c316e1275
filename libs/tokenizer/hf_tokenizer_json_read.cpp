#include <algorithm>
#include <map>
#include <optional>
#include <unordered_map>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/errors.h"
#include "tokenizer/hf_tokenizer_json.h"

namespace nanochat {
namespace {

using nlohmann::json;

class Reader {
 public:
  Reader(std::string_view contents, const std::string& source) : source_(source) {
    const auto check_depth = [this](int depth, json::parse_event_t, json&) {
      if (depth > kMostLevels) fail(fmt::format("nested deeper than {} levels", kMostLevels));
      return true;
    };
    try {
      root_ = json::parse(contents, check_depth);
    } catch (const json::exception& error) {
      fail(fmt::format("not valid JSON: {}", error.what()));
    }
    if (!root_.is_object()) fail("not a JSON object");
  }

  std::variant<ByteBpeDefinition, SentencePieceDefinition> read() {
    read_vocabulary();
    read_added_tokens();
    require_plain_model();
    const json& model = member(root_, "", "model");
    if (flag(model, "byte_fallback", false)) return read_sentencepiece();
    return read_byte_level();
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw TokenizerError(fmt::format("{}: {}", source_, what));
  }

  const json& member(const json& object, const std::string& path, const char* key) const {
    const auto found = object.find(key);
    if (found == object.end()) fail(fmt::format("the key {}{} is missing", path, key));
    return *found;
  }
  // An absent key is null.
  static const json& optional_member(const json& object, const char* key) {
    static const json null;
    const auto found = object.find(key);
    return found == object.end() ? null : *found;
  }
  static bool flag(const json& object, const char* key, bool when_absent) {
    const json& value = optional_member(object, key);
    return value.is_boolean() ? value.get<bool>() : when_absent;
  }
  static std::string type_of(const json& object) {
    const json& type = object.is_object() ? optional_member(object, "type") : object;
    return type.is_string() ? type.get<std::string>() : object.is_null() ? "none" : "unknown";
  }

  void read_vocabulary() {
    const json& model = member(root_, "", "model");
    if (!model.is_object()) fail("model is not an object");
    // GPT-2's first tokenizer.json has no type; its vocabulary and merges tell.
    if (model.contains("type") && type_of(model) != "BPE") {
      fail(fmt::format("model.type is \"{}\"; only \"BPE\" is supported", type_of(model)));
    }
    const json& vocabulary = member(model, "model.", "vocab");
    if (!vocabulary.is_object()) fail("model.vocab is not an object of tokens and ids");
    for (const auto& [token, id] : vocabulary.items()) {
      if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= kMostTokens) {
        fail(fmt::format("model.vocab[{}] is {}; expected an id from 0 to {}", json(token).dump(), id.dump(),
                         kMostTokens));
      }
      name_token(id.get<std::size_t>(), token, "model.vocab");
    }
  }

  void name_token(std::size_t id, const std::string& token, const char* where) {
    const auto [first, is_new] = by_id_.emplace(id, token);
    if (!is_new && first->second != token) {
      fail(fmt::format("{}: the id {} belongs to both {} and {}", where, id, json(first->second).dump(),
                       json(token).dump()));
    }
  }

  void read_added_tokens() {
    const json& added = optional_member(root_, "added_tokens");
    std::map<std::size_t, std::string> specials;
    for (std::size_t i = 0; added.is_array() && i < added.size(); ++i) {
      const std::string where = fmt::format("added_tokens[{}]", i);
      if (!added[i].is_object()) fail(where + " is not an object");
      const json& id = member(added[i], where + ".", "id");
      const json& content = member(added[i], where + ".", "content");
      if (!id.is_number_unsigned() || !content.is_string())
        fail(where + " needs a number as id and a string as content");
      if (!flag(added[i], "special", false)) {
        fail(fmt::format("{} {} is not special; ordinary added tokens are not supported", where, content.dump()));
      }
      name_token(id.get<std::size_t>(), content.get<std::string>(), "added_tokens");
      specials.emplace(id.get<std::size_t>(), content.get<std::string>());
    }
    std::size_t expected = 0;
    for (const auto& [id, token] : by_id_) {
      if (id != expected++)
        fail(fmt::format("no token has the id {}; ids must be 0 to {} without a gap", expected - 1,
                         by_id_.rbegin()->first));
    }
    ordinary_count_ = by_id_.size() - specials.size();
    for (const auto& [id, token] : specials) {
      if (id < ordinary_count_) {
        fail(fmt::format(
            "the special token {} has the id {}, amid the vocabulary; special tokens must have the last ids",
            json(token).dump(), id));
      }
      specials_.push_back(token);
    }
  }

  // Settings that change ids and that this program does not have.
  void require_plain_model() const {
    const json& model = member(root_, "", "model");
    const auto is_plain = [](const json& value) {
      return value.is_null() || (value.is_string() && value.get_ref<const std::string&>().empty()) ||
             value == json(0.0);
    };
    for (const char* key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) {
      if (!is_plain(optional_member(model, key))) {
        fail(fmt::format("model.{} is {}; only null is supported", key, optional_member(model, key).dump()));
      }
    }
  }

  std::vector<Merge> read_merges(const std::vector<std::string>& tokens) const {
    std::unordered_map<std::string_view, TokenId> ids;
    for (std::size_t id = 0; id < tokens.size(); ++id) ids.emplace(tokens[id], static_cast<TokenId>(id));
    const json& list = member(member(root_, "", "model"), "model.", "merges");
    if (!list.is_array()) fail("model.merges is not an array");
    std::vector<Merge> merges;
    merges.reserve(list.size());
    for (std::size_t i = 0; i < list.size(); ++i) {
      const auto [left, right] = read_pair(list[i], i);
      const auto id_of = [&](const std::string& token) {
        const auto found = ids.find(token);
        if (found == ids.end()) {
          fail(fmt::format("model.merges[{}] is {}, but {} is not in model.vocab", i, list[i].dump(),
                           json(token).dump()));
        }
        return found->second;
      };
      merges.push_back({id_of(left), id_of(right), id_of(left + right), static_cast<std::uint32_t>(i)});
    }
    return merges;
  }

  // "a b" as older versions write it, or ["a", "b"].
  std::pair<std::string, std::string> read_pair(const json& entry, std::size_t index) const {
    if (entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string()) {
      return {entry[0].get<std::string>(), entry[1].get<std::string>()};
    }
    if (entry.is_string()) {
      const std::string& text = entry.get_ref<const std::string&>();
      const std::size_t space = text.find(' ');
      if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
        return {text.substr(0, space), text.substr(space + 1)};
      }
    }
    fail(fmt::format("model.merges[{}] is {}; expected \"a b\" or [\"a\", \"b\"]", index, entry.dump()));
  }

  std::vector<std::string> ordinary_tokens() const {
    std::vector<std::string> tokens;
    tokens.reserve(ordinary_count_);
    for (std::size_t id = 0; id < ordinary_count_; ++id) tokens.push_back(by_id_.at(id));
    return tokens;
  }

  SentencePieceDefinition read_sentencepiece() const {
    const json& normalizer = optional_member(root_, "normalizer");
    const json expected = {
        {"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", std::string(kSpaceSymbol)}};
    if (normalizer != expected) {
      fail(fmt::format("normalizer is {}; with model.byte_fallback only {} is supported", normalizer.dump(),
                       expected.dump()));
    }
    const json& pre_tokenizer = optional_member(root_, "pre_tokenizer");
    if (!pre_tokenizer.is_null()) {
      fail(fmt::format("pre_tokenizer is of type \"{}\"; with model.byte_fallback only null is supported",
                       type_of(pre_tokenizer)));
    }
    SentencePieceDefinition definition;
    definition.pieces = ordinary_tokens();
    definition.merges = read_merges(definition.pieces);
    definition.specials = specials_;
    return definition;
  }

  ByteBpeDefinition read_byte_level() const {
    if (const json& normalizer = optional_member(root_, "normalizer"); !normalizer.is_null()) {
      fail(fmt::format("normalizer is of type \"{}\"; byte-level BPE must have none", type_of(normalizer)));
    }
    ByteBpeDefinition definition;
    definition.pattern = read_pattern();
    const std::vector<std::string> printable = ordinary_tokens();
    definition.merges = read_merges(printable);
    for (const std::string& token : printable) definition.tokens.push_back(printable_to_bytes(token, source_));
    definition.specials = specials_;
    definition.ignore_merges = flag(member(root_, "", "model"), "ignore_merges", false);
    return definition;
  }

  std::string read_pattern() const {
    const json& pre_tokenizer = optional_member(root_, "pre_tokenizer");
    const bool sequence = type_of(pre_tokenizer) == "Sequence";
    const json steps = sequence ? optional_member(pre_tokenizer, "pretokenizers") : json::array({pre_tokenizer});
    std::optional<std::string> pattern;
    bool byte_level = false;
    for (const json& step : steps) {
      const std::string type = type_of(step);
      if (type == "Split" && !pattern && !byte_level) {
        pattern = read_split(step);
      } else if (type == "ByteLevel" && !byte_level) {
        byte_level = true;
        if (flag(step, "add_prefix_space", true)) fail("pre_tokenizer: ByteLevel.add_prefix_space must be false");
        if (flag(step, "use_regex", true)) {
          if (pattern) fail("pre_tokenizer: ByteLevel.use_regex after a Split is not supported");
          pattern = std::string(kGpt2Pattern);
        }
      } else {
        fail(fmt::format("pre_tokenizer has a step \"{}\"; supported are ByteLevel, and Split followed by ByteLevel",
                         type));
      }
    }
    if (!byte_level || !pattern) fail("pre_tokenizer must be ByteLevel, or Split followed by ByteLevel");
    return *pattern;
  }

  // Both of the usual forms make every match a piece, and what lies between matches too.
  std::string read_split(const json& step) const {
    const json& pattern = optional_member(step, "pattern");
    const json& regex = pattern.is_object() ? optional_member(pattern, "Regex") : pattern;
    if (!regex.is_string()) fail("pre_tokenizer: Split.pattern must be a Regex");
    const json& behavior = optional_member(step, "behavior");
    const bool inverted = flag(step, "invert", false);
    if (behavior != json("Isolated") && !(behavior == json("Removed") && inverted)) {
      fail(fmt::format("pre_tokenizer: Split.behavior {} is not supported; expected \"Isolated\"", behavior.dump()));
    }
    return regex.get<std::string>();
  }

  static constexpr std::size_t kMostTokens = std::size_t{1} << 24;
  static constexpr int kMostLevels = 64;  // messages show what they found, and that walks down the tree

  const std::string& source_;
  json root_;
  std::map<std::size_t, std::string> by_id_;
  std::size_t ordinary_count_ = 0;
  std::vector<std::string> specials_;
};

}  // namespace

std::variant<ByteBpeDefinition, SentencePieceDefinition> parse_hf_json(std::string_view contents,
                                                                       const std::string& source) {
  return Reader(contents, source).read();
}

}  // namespace nanochat
