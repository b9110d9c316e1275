#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "tokenizer/internal/hf_tokenizer_json.h"
#include "tokenizer/internal/regex_dialect.h"
#include "tokenizer/special_tokens.h"

namespace nanochat {
namespace {

using nlohmann::ordered_json;

std::string quoted(const std::string& text) { return ordered_json(text).dump(); }

// The parts that differ between the two kinds, as JSON.
struct Parts {
  ordered_json normalizer, pre_tokenizer, post_processor, decoder;  // null unless set
  ordered_json unk_token;
  bool byte_fallback = false, ignore_merges = false;
};

std::vector<AddedToken> as_added_tokens(const std::vector<std::string>& specials, std::size_t first) {
  std::vector<AddedToken> added;
  for (const std::string& name : specials) {
    AddedToken token;
    token.id = static_cast<TokenId>(first + added.size());
    token.content = name;
    token.special = true;
    added.push_back(std::move(token));
  }
  return added;
}

// Vocabulary and merges are written by hand, an entry a line: in the order of ids, which a JSON object of this size
// would either lose or be slow to keep.
std::string assemble(const Parts& parts, const std::vector<std::string>& vocabulary, const std::vector<Merge>& merges,
                     const std::vector<AddedToken>& added_tokens) {
  ordered_json added = ordered_json::array();
  for (const AddedToken& token : added_tokens) {
    added.push_back({{"id", token.id},
                     {"content", token.content},
                     {"single_word", token.single_word},
                     {"lstrip", token.lstrip},
                     {"rstrip", token.rstrip},
                     {"normalized", token.normalized},
                     {"special", token.special}});
  }
  std::string json = "{\n\"version\": \"1.0\",\n\"truncation\": null,\n\"padding\": null,\n";
  json += fmt::format("\"added_tokens\": {},\n", added.dump());
  json += fmt::format("\"normalizer\": {},\n", parts.normalizer.dump());
  json += fmt::format("\"pre_tokenizer\": {},\n", parts.pre_tokenizer.dump());
  json += fmt::format("\"post_processor\": {},\n\"decoder\": {},\n", parts.post_processor.dump(), parts.decoder.dump());
  json += fmt::format("\"model\": {{\n\"type\": \"BPE\",\n\"dropout\": null,\n\"unk_token\": {},\n", parts.unk_token.dump());
  json += "\"continuing_subword_prefix\": null,\n\"end_of_word_suffix\": null,\n";
  json += fmt::format("\"fuse_unk\": {0},\n\"byte_fallback\": {0},\n\"ignore_merges\": {1},\n", parts.byte_fallback,
                      parts.ignore_merges);
  json += "\"vocab\": {\n";
  std::vector<std::string> names;  // JSON strings
  names.reserve(vocabulary.size());
  for (const std::string& token : vocabulary) names.push_back(quoted(token));
  for (std::size_t id = 0; id < names.size(); ++id) {
    json += fmt::format("{}: {}{}\n", names[id], id, id + 1 < names.size() ? "," : "");
  }
  json += "},\n\"merges\": [\n";
  for (std::size_t i = 0; i < merges.size(); ++i) {
    json += fmt::format("[{}, {}]{}\n", names[static_cast<std::size_t>(merges[i].left)],
                        names[static_cast<std::size_t>(merges[i].right)], i + 1 < merges.size() ? "," : "");
  }
  json += "]\n}\n}\n";
  return json;
}

// A section as it was read, or null.
ordered_json section(const std::string& text) { return text.empty() ? ordered_json() : ordered_json::parse(text); }

ordered_json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

ordered_json pre_tokenizer_of(const std::string& pattern) {
  if (pattern == kGpt2Pattern) return byte_level(true);  // ByteLevel's own expression
  const std::string regex = pattern == kCl100kPattern ? std::string(kCl100kPatternForOniguruma) : to_oniguruma(pattern);
  const ordered_json split = {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}};
  return {{"type", "Sequence"}, {"pretokenizers", ordered_json::array({split, byte_level(false)})}};
}

}  // namespace

std::string to_hf_json(const ByteBpeTokenizer& tokenizer) {
  const TextSteps& steps = tokenizer.steps();
  std::vector<std::string> vocabulary;
  for (std::size_t index = 0; index < tokenizer.merged_vocab_size(); ++index) {
    const auto id = static_cast<TokenId>(index);
    const std::string_view bytes = tokenizer.token_bytes(id);
    vocabulary.push_back(tokenizer.is_merged(id) ? bytes_to_printable(bytes) : std::string(bytes));
  }
  Parts parts;
  parts.ignore_merges = tokenizer.ignore_merges();
  parts.normalizer = section(steps.normalizer_json);
  parts.pre_tokenizer = steps.splits.empty() ? pre_tokenizer_of(tokenizer.pattern()) : section(steps.pre_tokenizer_json);
  parts.post_processor = section(steps.post_processor_json);
  parts.decoder = section(steps.decoder_json);
  if (parts.decoder.is_null()) {
    parts.decoder = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
  }
  return assemble(parts, vocabulary, tokenizer.merges(),
                  steps.added.empty() ? as_added_tokens(tokenizer.special_tokens(), vocabulary.size()) : steps.added);
}

std::string to_hf_json(const SentencePieceTokenizer& tokenizer) {
  Parts parts;
  parts.unk_token = std::string(kUnknownPiece);
  parts.byte_fallback = true;
  parts.normalizer = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", std::string(kSpaceSymbol)}};
  const ordered_json spaces = {{"type", "Replace"}, {"pattern", {{"String", std::string(kSpaceSymbol)}}}, {"content", " "}};
  parts.decoder = {{"type", "Sequence"},
                   {"decoders", ordered_json::array({spaces, {{"type", "ByteFallback"}}, {{"type", "Fuse"}}})}};
  return assemble(parts, tokenizer.pieces(), tokenizer.merges(),
                  as_added_tokens(tokenizer.special_tokens(), tokenizer.pieces().size()));
}

std::string hf_tokenizer_config(const Tokenizer& tokenizer) {
  ordered_json config = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"clean_up_tokenization_spaces", false}};
  if (const auto bos = tokenizer.find_bos()) config["bos_token"] = std::string(tokenizer.token_bytes(*bos));
  if (tokenizer.special_id(kAssistantEnd)) config["eos_token"] = std::string(kAssistantEnd);
  return config.dump(2) + "\n";
}

}  // namespace nanochat
