#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/errors.h"
#include "tokenizer/hf_tokenizer_json.h"
#include "tokenizer/special_tokens.h"

namespace nanochat {
namespace {

using nlohmann::ordered_json;

std::string quoted(const std::string& text) { return ordered_json(text).dump(); }

// The parts that differ between the two kinds, as JSON.
struct Parts {
  ordered_json normalizer, pre_tokenizer, decoder;  // null unless set
  ordered_json unk_token;
  bool byte_fallback = false, ignore_merges = false;
};

// Vocabulary and merges are written by hand, an entry a line: in the order of ids, which a JSON object of this size
// would either lose or be slow to keep.
std::string assemble(const Parts& parts, const std::vector<std::string>& vocabulary, const std::vector<Merge>& merges,
                     const std::vector<std::string>& specials) {
  ordered_json added = ordered_json::array();
  for (std::size_t i = 0; i < specials.size(); ++i) {
    added.push_back({{"id", vocabulary.size() + i},
                     {"content", specials[i]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  std::string json = "{\n\"version\": \"1.0\",\n\"truncation\": null,\n\"padding\": null,\n";
  json += fmt::format("\"added_tokens\": {},\n", added.dump());
  json += fmt::format("\"normalizer\": {},\n", parts.normalizer.dump());
  json += fmt::format("\"pre_tokenizer\": {},\n", parts.pre_tokenizer.dump());
  json += fmt::format("\"post_processor\": null,\n\"decoder\": {},\n", parts.decoder.dump());
  json += fmt::format("\"model\": {{\n\"type\": \"BPE\",\n\"dropout\": null,\n\"unk_token\": {},\n",
                      parts.unk_token.dump());
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

}  // namespace

std::string to_hf_json(const ByteBpeTokenizer& tokenizer) {
  std::vector<std::string> vocabulary;
  for (TokenId id = 0; id < tokenizer.first_special(); ++id) {
    vocabulary.push_back(bytes_to_printable(tokenizer.token_bytes(id)));
  }
  Parts parts;
  parts.ignore_merges = tokenizer.ignore_merges();
  const bool gpt2 = tokenizer.pattern() == kGpt2Pattern;  // ByteLevel's own expression
  const ordered_json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", gpt2}};
  if (gpt2) {
    parts.pre_tokenizer = byte_level;
  } else {
    const std::string pattern =
        tokenizer.pattern() == kCl100kPattern ? std::string(kCl100kPatternForOniguruma) : tokenizer.pattern();
    const ordered_json split = {
        {"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
    parts.pre_tokenizer = {{"type", "Sequence"}, {"pretokenizers", ordered_json::array({split, byte_level})}};
  }
  parts.decoder = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
  return assemble(parts, vocabulary, tokenizer.merges(), tokenizer.special_tokens());
}

std::string to_hf_json(const SentencePieceTokenizer& tokenizer) {
  Parts parts;
  parts.unk_token = std::string(kUnknownPiece);
  parts.byte_fallback = true;
  parts.normalizer = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", std::string(kSpaceSymbol)}};
  const ordered_json spaces = {
      {"type", "Replace"}, {"pattern", {{"String", std::string(kSpaceSymbol)}}}, {"content", " "}};
  parts.decoder = {{"type", "Sequence"},
                   {"decoders", ordered_json::array({spaces, {{"type", "ByteFallback"}}, {{"type", "Fuse"}}})}};
  return assemble(parts, tokenizer.pieces(), tokenizer.merges(), tokenizer.special_tokens());
}

std::string hf_tokenizer_config(const Tokenizer& tokenizer) {
  ordered_json config = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"clean_up_tokenization_spaces", false}};
  if (const auto bos = tokenizer.find_bos()) config["bos_token"] = std::string(tokenizer.token_bytes(*bos));
  if (tokenizer.special_id(kAssistantEnd)) config["eos_token"] = std::string(kAssistantEnd);
  return config.dump(2) + "\n";
}

}  // namespace nanochat
