#include <algorithm>
#include <map>
#include <unordered_map>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "tokenizer/internal/hf_tokenizer_json.h"
#include "tokenizer/internal/regex_dialect.h"
#include "tokenizer/internal/unicode_versions.h"

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
  [[noreturn]] void fail(const std::string& what) const { throw TokenizerError(fmt::format("{}: {}", source_, what)); }

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
    std::vector<const std::string*> by_id(vocabulary.size(), nullptr);
    for (const auto& [token, id] : vocabulary.items()) {
      if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= kMostTokens) {
        fail(fmt::format("model.vocab[{}] is {}, expected an id from 0 to {}", json(token).dump(), id.dump(), kMostTokens));
      }
      const auto index = id.get<std::size_t>();
      if (index >= by_id.size()) by_id.resize(index + 1, nullptr);
      if (by_id[index] != nullptr) {
        fail(fmt::format("model.vocab: the id {} belongs to both {} and {}", index, json(*by_id[index]).dump(),
                         json(token).dump()));
      }
      by_id[index] = &token;
    }
    for (std::size_t id = 0; id < by_id.size(); ++id) {
      if (by_id[id] == nullptr) {
        fail(fmt::format("no token has the id {}; ids must be 0 to {} without a gap", id, by_id.size() - 1));
      }
      vocabulary_.push_back(*by_id[id]);
      vocabulary_ids_.emplace(vocabulary_.back(), id);
    }
  }

  // The package gives ids itself, whatever the file says: that of the vocabulary, else the next one. A file that says
  // otherwise would mean two different tokenizers.
  void read_added_tokens() {
    const json& list = optional_member(root_, "added_tokens");
    if (list.is_null()) return;
    if (!list.is_array()) fail("added_tokens is not an array");
    std::unordered_map<std::string, AddedToken> seen;
    std::size_t next = vocabulary_.size();
    for (std::size_t i = 0; i < list.size(); ++i) {
      const std::string where = fmt::format("added_tokens[{}]", i);
      if (!list[i].is_object()) fail(where + " is not an object");
      const json& id = member(list[i], where + ".", "id");
      const json& content = member(list[i], where + ".", "content");
      if (!id.is_number_unsigned() || !content.is_string()) {
        fail(where + " needs a number as id and a string as content");
      }
      AddedToken token;
      token.content = content.get<std::string>();
      token.special = flag(list[i], "special", false);
      token.single_word = flag(list[i], "single_word", false);
      token.lstrip = flag(list[i], "lstrip", false);
      token.rstrip = flag(list[i], "rstrip", false);
      token.normalized = flag(list[i], "normalized", !token.special);
      if (token.content.empty()) fail(where + ".content is empty");
      const auto known = vocabulary_ids_.find(token.content);
      const auto earlier = seen.find(token.content);
      const std::size_t expected = earlier != seen.end()            ? static_cast<std::size_t>(earlier->second.id)
                                   : known != vocabulary_ids_.end() ? known->second
                                                                    : next++;
      if (id.get<std::uint64_t>() != expected) {
        fail(fmt::format("{} {} has the id {}, but {} {}", where, content.dump(), id.dump(),
                         known != vocabulary_ids_.end() ? "model.vocab gives it" : "ids must go on without a gap: expected",
                         expected));
      }
      token.id = static_cast<TokenId>(expected);
      if (earlier == seen.end()) {
        seen.emplace(token.content, token);
      } else if (!(earlier->second == token)) {
        fail(fmt::format("{} {} stands there twice with different settings", where, content.dump()));
      }
    }
    for (auto& [content, token] : seen) added_.push_back(std::move(token));
    std::sort(added_.begin(), added_.end(), [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  }

  // The added token with this id, or null.
  const AddedToken* added_at(std::size_t id) const {
    const auto found = std::lower_bound(added_.begin(), added_.end(), id, [](const AddedToken& token, std::size_t value) {
      return static_cast<std::size_t>(token.id) < value;
    });
    return found != added_.end() && static_cast<std::size_t>(found->id) == id ? &*found : nullptr;
  }

  // Settings that change ids and that this program does not have.
  void require_plain_model() const {
    const json& model = member(root_, "", "model");
    const auto is_plain = [](const json& value) {
      return value.is_null() || (value.is_string() && value.get_ref<const std::string&>().empty()) || value == json(0.0);
    };
    for (const char* key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) {
      if (!is_plain(optional_member(model, key))) {
        fail(fmt::format("model.{} is {}; only null is supported", key, optional_member(model, key).dump()));
      }
    }
  }

  // `tokens` by id; empty strings are none.
  std::vector<Merge> read_merges(const std::vector<std::string>& tokens) const {
    std::unordered_map<std::string_view, TokenId> ids;
    for (std::size_t id = 0; id < tokens.size(); ++id) {
      if (!tokens[id].empty()) ids.emplace(tokens[id], static_cast<TokenId>(id));
    }
    const json& list = member(member(root_, "", "model"), "model.", "merges");
    if (!list.is_array()) fail("model.merges is not an array");
    std::vector<Merge> merges;
    merges.reserve(list.size());
    for (std::size_t i = 0; i < list.size(); ++i) {
      const auto [left, right] = read_pair(list[i], i);
      const auto id_of = [&](const std::string& token) {
        const auto found = ids.find(token);
        if (found != ids.end()) return found->second;
        fail(fmt::format("model.merges[{}] is {}, but {} is {}", i, list[i].dump(), json(token).dump(),
                         vocabulary_ids_.contains(token) ? "a special token" : "not in model.vocab"));
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
    fail(fmt::format("model.merges[{}] is {}, expected \"a b\" or [\"a\", \"b\"]", index, entry.dump()));
  }

  // The special tokens where they are all there is, have the last ids and plain names; otherwise they stay among added_.
  std::vector<std::string> take_plain_specials(bool byte_level) {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < added_.size(); ++i) {
      const AddedToken& token = added_[i];
      const bool last = static_cast<std::size_t>(token.id) == first_plain_special() + i;
      const bool flags = token.single_word || token.lstrip || token.rstrip || token.normalized;
      // One that byte-level BPE would spell otherwise may have the bytes of another token.
      const bool plain_name = !byte_level || bytes_to_printable(token.content) == token.content;
      if (!token.special || !last || flags || !plain_name) return {};
      names.push_back(token.content);
    }
    vocabulary_.resize(std::min(vocabulary_.size(), first_plain_special()));
    added_.clear();
    return names;
  }
  std::size_t first_plain_special() const {
    std::size_t in_vocabulary = 0;
    for (const AddedToken& token : added_) in_vocabulary += static_cast<std::size_t>(token.id) < vocabulary_.size() ? 1 : 0;
    return vocabulary_.size() - in_vocabulary;
  }

  SentencePieceDefinition read_sentencepiece() {
    const json& normalizer = optional_member(root_, "normalizer");
    const json expected = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", std::string(kSpaceSymbol)}};
    if (normalizer != expected) {
      fail(fmt::format("normalizer is {}; with model.byte_fallback only {} is supported", normalizer.dump(), expected.dump()));
    }
    const json& pre_tokenizer = optional_member(root_, "pre_tokenizer");
    if (!pre_tokenizer.is_null()) {
      fail(fmt::format("pre_tokenizer is of type \"{}\"; with model.byte_fallback only null is supported",
                       type_of(pre_tokenizer)));
    }
    SentencePieceDefinition definition;
    definition.specials = take_plain_specials(/*byte_level=*/false);
    if (!added_.empty()) {
      fail(
          fmt::format("the added token {} is not special or not one of the last; with model.byte_fallback only special "
                      "tokens with the last ids are supported",
                      json(added_.front().content).dump()));
    }
    definition.pieces = vocabulary_;
    definition.merges = read_merges(definition.pieces);
    return definition;
  }

  ByteBpeDefinition read_byte_level() {
    ByteBpeDefinition definition;
    TextSteps& steps = definition.steps;
    read_normalizer(optional_member(root_, "normalizer"), steps.normalizer);
    read_pre_tokenizer(optional_member(root_, "pre_tokenizer"), steps.splits);
    take_single_pattern(definition);
    definition.specials = take_plain_specials(/*byte_level=*/true);
    std::vector<std::string> printable = vocabulary_;
    for (std::size_t id = 0; id < printable.size(); ++id) {
      // A token of the vocabulary that is an added one, too: special, or no bytes that merges could make.
      const AddedToken* added = added_at(id);
      if (added != nullptr && (added->special || !is_printable(printable[id]))) printable[id].clear();
      definition.tokens.push_back(printable_to_bytes(printable[id], source_));
    }
    definition.merges = read_merges(printable);
    definition.ignore_merges = flag(member(root_, "", "model"), "ignore_merges", false);
    steps.added = added_;
    const auto keep = [&](const char* key, std::string& section) {
      if (const json& value = optional_member(root_, key); !value.is_null()) section = value.dump();
    };
    if (!steps.normalizer.empty()) keep("normalizer", steps.normalizer_json);
    if (!steps.splits.empty()) keep("pre_tokenizer", steps.pre_tokenizer_json);
    keep("post_processor", steps.post_processor_json);
    keep("decoder", steps.decoder_json);
    return definition;
  }

  static bool is_printable(const std::string& token) {
    try {
      printable_to_bytes(token, "");
      return true;
    } catch (const TokenizerError&) {
      return false;
    }
  }

  std::string text_member(const json& object, const std::string& where, const char* key) const {
    const json& value = member(object, where + ".", key);
    if (!value.is_string()) fail(fmt::format("{}.{} is not a string", where, key));
    return value.get<std::string>();
  }

  // In the dialect of pretokenizer.h.
  std::string read_regex(const json& object, const std::string& where) const {
    const json& pattern = member(object, where + ".", "pattern");
    if (pattern.is_object() && pattern.size() == 1 && pattern.begin()->is_string()) {
      const std::string text = pattern.begin()->get<std::string>();
      if (pattern.begin().key() == "String") return text.empty() ? "(?:)" : literal_pattern(text);
      if (pattern.begin().key() == "Regex") {
        const std::string known = resolve_pattern(text);
        const std::string_view name = pattern_name(known);
        if (text == name) return fmt::format("(?:{})", text);  // the letters, no name of ours
        // Of cl100k's pattern Oniguruma reads only another spelling alike.
        if (name != "custom" && text != kCl100kPattern) return known;
        try {
          return text.empty() ? "(?:)" : from_oniguruma(text);
        } catch (const TokenizerError& error) {
          fail(fmt::format("{}: {}", where, error.what()));
        }
      }
    }
    fail(fmt::format("{}.pattern is {}, expected {{\"Regex\": …}} or {{\"String\": …}}", where, pattern.dump()));
  }

  void require_object(const json& step, const char* what) const {
    if (!step.is_object()) fail(fmt::format("{} is {}, expected an object with a type", what, step.dump().substr(0, 60)));
  }

  void read_normalizer(const json& normalizer, std::vector<NormalizerStep>& steps) const {
    if (normalizer.is_null()) return;
    require_object(normalizer, "normalizer");
    const std::string type = type_of(normalizer);
    using Kind = NormalizerStep::Kind;
    static const std::map<std::string_view, Kind> plain = {{"NFC", Kind::kNfc},
                                                           {"NFD", Kind::kNfd},
                                                           {"NFKC", Kind::kNfkc},
                                                           {"NFKD", Kind::kNfkd},
                                                           {"Lowercase", Kind::kLowercase},
                                                           {"StripAccents", Kind::kStripAccents}};
    NormalizerStep step;
    if (const auto found = plain.find(type); found != plain.end()) {
      step.kind = found->second;
    } else if (type == "Sequence") {
      const json& list = member(normalizer, "normalizer.", "normalizers");
      if (!list.is_array()) fail("normalizer.normalizers is not an array");
      for (const json& one : list) read_normalizer(one, steps);
      return;
    } else if (type == "Strip") {
      step.kind = Kind::kStrip;
      step.left = flag(normalizer, "strip_left", true);
      step.right = flag(normalizer, "strip_right", true);
    } else if (type == "Prepend") {
      step.kind = Kind::kPrepend;
      step.content = text_member(normalizer, "normalizer: Prepend", "prepend");
      if (step.content.empty()) fail("normalizer: Prepend.prepend is empty");
    } else if (type == "Replace") {
      step.kind = Kind::kReplace;
      step.pattern = read_regex(normalizer, "normalizer: Replace");
      step.content = text_member(normalizer, "normalizer: Replace", "content");
      // There the package loses count of the characters and repeats some.
      if (compiled(step.pattern, "normalizer: Replace").can_match_empty()) {
        fail(fmt::format("normalizer: Replace.pattern {} may match the empty text, which is not supported",
                         member(normalizer, "", "pattern").dump()));
      }
    } else {
      fail(
          fmt::format("normalizer \"{}\" is not supported; supported are NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, "
                      "Strip, Prepend, Replace and Sequences of them",
                      type));
    }
    steps.push_back(std::move(step));
  }

  Pretokenizer compiled(const std::string& pattern, const std::string& where) const {
    try {
      return Pretokenizer(pattern);
    } catch (const TokenizerError& error) {
      fail(fmt::format("{}: {}", where, error.what()));
    }
  }

  void read_pre_tokenizer(const json& step, std::vector<SplitStep>& steps) const {
    require_object(step, "pre_tokenizer");
    const std::string type = type_of(step);
    const std::string where = "pre_tokenizer: " + type;
    if (type == "Sequence") {
      const json& list = member(step, "pre_tokenizer.", "pretokenizers");
      if (!list.is_array()) fail("pre_tokenizer.pretokenizers is not an array");
      for (const json& one : list) read_pre_tokenizer(one, steps);
      return;
    }
    SplitStep split;
    if (type == "Split") {
      split.pattern = read_regex(step, where);
      split.behavior = read_behavior(member(step, where + ".", "behavior"), where);
      split.invert = flag(step, "invert", false);
    } else if (type == "Digits") {
      split.pattern = unicode::kNumericPattern;
      split.behavior = flag(step, "individual_digits", false) ? SplitStep::Behavior::kIsolated
                                                              : SplitStep::Behavior::kContiguous;
    } else if (type == "Punctuation") {
      const json& behavior = optional_member(step, "behavior");
      split.pattern = unicode::kPunctuationPattern;
      if (!behavior.is_null()) split.behavior = read_behavior(behavior, where);
    } else if (type == "ByteLevel") {
      split.kind = SplitStep::Kind::kByteLevel;
      split.add_prefix_space = flag(step, "add_prefix_space", true);
      if (flag(step, "use_regex", true)) split.pattern = kGpt2Pattern;
      if (has_byte_level(steps)) fail("pre_tokenizer: ByteLevel stands there twice");
    } else {
      fail(
          fmt::format("pre_tokenizer \"{}\" is not supported; supported are ByteLevel and, in a Sequence with it, Split, "
                      "Digits and Punctuation",
                      type));
    }
    if (!split.pattern.empty()) compiled(split.pattern, where);
    steps.push_back(std::move(split));
  }

  static bool has_byte_level(const std::vector<SplitStep>& steps) {
    return std::any_of(steps.begin(), steps.end(),
                       [](const SplitStep& step) { return step.kind == SplitStep::Kind::kByteLevel; });
  }

  SplitStep::Behavior read_behavior(const json& behavior, const std::string& where) const {
    using Behavior = SplitStep::Behavior;
    static const std::map<std::string_view, Behavior> known = {{"Isolated", Behavior::kIsolated},
                                                               {"Removed", Behavior::kRemoved},
                                                               {"Contiguous", Behavior::kContiguous},
                                                               {"MergedWithPrevious", Behavior::kMergedWithPrevious},
                                                               {"MergedWithNext", Behavior::kMergedWithNext}};
    const auto found = known.find(type_of(behavior));
    if (found == known.end()) {
      fail(
          fmt::format("{}.behavior {} is not supported; expected one of \"Isolated\", \"Removed\", \"Contiguous\", "
                      "\"MergedWithPrevious\", \"MergedWithNext\"",
                      where, behavior.dump()));
    }
    return found->second;
  }

  // One split that keeps everything, then ByteLevel without a prefix space, is a split pattern alone.
  void take_single_pattern(ByteBpeDefinition& definition) const {
    std::vector<SplitStep>& steps = definition.steps.splits;
    if (!has_byte_level(steps)) fail("pre_tokenizer has no step ByteLevel, which byte-level BPE needs");
    const SplitStep& first = steps.front();
    const SplitStep& last = steps.back();
    if (last.kind != SplitStep::Kind::kByteLevel || last.add_prefix_space) return;
    // Removed and inverted keeps the matches alone: all of the text with a published pattern.
    const bool keeps_all = first.behavior == SplitStep::Behavior::kIsolated ||
                           (first.behavior == SplitStep::Behavior::kRemoved && first.invert &&
                            pattern_name(first.pattern) != "custom");
    if (steps.size() == 1 ? first.pattern.empty() : steps.size() > 2 || !keeps_all || !last.pattern.empty()) return;
    definition.pattern = first.pattern;
    steps.clear();
  }

  static constexpr std::size_t kMostTokens = std::size_t{1} << 24;
  static constexpr int kMostLevels = 64;  // messages show what they found, and that walks down the tree

  const std::string& source_;
  json root_;
  std::vector<std::string> vocabulary_;  // model.vocab by id
  std::unordered_map<std::string, std::size_t> vocabulary_ids_;
  std::vector<AddedToken> added_;  // by id
};

}  // namespace

std::variant<ByteBpeDefinition, SentencePieceDefinition> parse_hf_json(std::string_view contents, const std::string& source) {
  return Reader(contents, source).read();
}

}  // namespace nanochat
