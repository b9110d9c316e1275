#include "tokenizer/internal/hf_tokenizer_json.h"

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "core/errors.h"
#include "tokenizer/testing_tokenizers.h"

namespace nanochat {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;

// What this program writes for the small byte-level tokenizer, to be damaged.
json small_json() { return json::parse(to_hf_json(ByteBpeTokenizer(testing::small_bpe_definition()))); }

ByteBpeDefinition read_bpe(const json& document) {
  return std::get<ByteBpeDefinition>(parse_hf_json(document.dump(), "tokenizer.json"));
}

json small_sentencepiece_json() {
  static const std::string text = to_hf_json(dynamic_cast<const SentencePieceTokenizer&>(*testing::small_sentencepiece()));
  return json::parse(text);
}

void expect_refused(const json& document, std::string_view key_and_reason) {
  EXPECT_ERROR(parse_hf_json(document.dump(), "dir/tokenizer.json"), TokenizerError,
               "dir/tokenizer.json: ", std::string(key_and_reason));
}

TEST(PrintableBytes, GoThereAndBack) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  EXPECT_EQ(printable_to_bytes(bytes_to_printable(all), "f"), all);
  EXPECT_EQ(bytes_to_printable(" a\n\x7F\xA0\xAD\xFF"), "\u0120a\u010A\u0121\u0142\u0143\u00FF");
  EXPECT_ERROR(printable_to_bytes("a\u20AC", "f"), TokenizerError, "f: token \"a\u20AC\": \"\u20AC\" stands for no byte");
  EXPECT_ERROR(printable_to_bytes(" ", "f"), TokenizerError, "stands for no byte");
}

TEST(HfJson, WritesWhatTheTokenizersPackageExpects) {
  const json document = small_json();
  EXPECT_EQ(document["version"], "1.0");
  EXPECT_EQ(document["model"]["type"], "BPE");
  EXPECT_EQ(document["model"]["ignore_merges"], false);
  EXPECT_EQ(document["model"]["byte_fallback"], false);
  EXPECT_EQ(document["model"]["vocab"]["\u0120the"], 259);
  EXPECT_EQ(document["model"]["merges"][2], json::array({"th", "e"}));
  EXPECT_EQ(document["added_tokens"].size(), 9U);
  EXPECT_EQ(document["added_tokens"][0]["content"], "<|bos|>");
  EXPECT_EQ(document["added_tokens"][0]["id"], 267);
  EXPECT_EQ(document["added_tokens"][0]["special"], true);
  EXPECT_EQ(document["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"], std::string(kNanochatPattern));
  EXPECT_EQ(document["pre_tokenizer"]["pretokenizers"][1]["use_regex"], false);
  EXPECT_EQ(document["decoder"]["type"], "ByteLevel");
}

TEST(HfJson, Gpt2sPatternIsByteLevelsOwn) {
  const json document = json::parse(to_hf_json(ByteBpeTokenizer(testing::small_bpe_definition("gpt2"))));
  EXPECT_EQ(document["pre_tokenizer"]["type"], "ByteLevel");
  EXPECT_EQ(document["pre_tokenizer"]["use_regex"], true);
  EXPECT_EQ(read_bpe(document).pattern, kGpt2Pattern);
}

TEST(HfJson, Cl100ksPatternIsSpelledForOniguruma) {
  const json document = json::parse(to_hf_json(ByteBpeTokenizer(testing::small_bpe_definition("cl100k"))));
  const auto regex = document["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"].get<std::string>();
  EXPECT_THAT(regex, ::testing::HasSubstr("\\p{N}{1,3}|"));
  EXPECT_EQ(resolve_pattern(regex), kCl100kPattern);
}

TEST(HfJson, WritesSentencepieceAsBpeWithByteFallback) {
  const json document = small_sentencepiece_json();
  EXPECT_EQ(document["model"]["byte_fallback"], true);
  EXPECT_EQ(document["model"]["unk_token"], "<unk>");
  EXPECT_EQ(document["model"]["vocab"]["<0x0A>"], 11);
  EXPECT_EQ(document["normalizer"]["content"], std::string(kSpaceSymbol));
  EXPECT_EQ(document["decoder"]["decoders"][1]["type"], "ByteFallback");
  const auto definition = std::get<SentencePieceDefinition>(parse_hf_json(document.dump(), "f"));
  EXPECT_EQ(definition.pieces.size(), 491U);
  EXPECT_EQ(definition.specials.size(), 9U);
  EXPECT_EQ(definition.merges.size(), document["model"]["merges"].size());
}

TEST(HfJson, ReadsOlderForms) {
  json document = small_json();
  document["model"].erase("type");
  document["model"]["merges"] = {"t h", "h e", "th e"};
  document["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed";
  document["pre_tokenizer"]["pretokenizers"][0]["invert"] = true;
  document["model"]["vocab"]["<|bos|>"] = 267;  // also named among the added tokens
  document["model"]["dropout"] = 0.0;
  document["model"]["continuing_subword_prefix"] = "";
  const ByteBpeDefinition definition = read_bpe(document);
  EXPECT_EQ(definition.tokens, testing::small_ranks());
  EXPECT_EQ(definition.pattern, kNanochatPattern);
  EXPECT_FALSE(definition.ignore_merges);
  ASSERT_EQ(definition.merges.size(), 3U);
  EXPECT_EQ(definition.merges[2].left, 256);
  EXPECT_EQ(definition.merges[2].right, 'e');
  EXPECT_EQ(definition.merges[2].result, 258);
  EXPECT_THAT(definition.specials,
              ElementsAre("<|bos|>", "<|user_start|>", "<|user_end|>", "<|assistant_start|>", "<|assistant_end|>",
                          "<|python_start|>", "<|python_end|>", "<|output_start|>", "<|output_end|>"));
}

TEST(HfJson, RefusesDamagedFiles) {
  const std::string whole = small_json().dump();
  EXPECT_ERROR(parse_hf_json(whole.substr(0, whole.size() / 2), "f"), TokenizerError, "f: not valid JSON: ", "parse error");
  EXPECT_ERROR(parse_hf_json("[]", "f"), TokenizerError, "f: not a JSON object");
  EXPECT_ERROR(parse_hf_json("{}", "f"), TokenizerError, "f: the key model is missing");
}

TEST(HfJson, NamesTheKeyAtFault) {
  const auto refuse = [](const std::string& pointer, const json& value, std::string_view reason) {
    json document = small_json();
    document[json::json_pointer(pointer)] = value;
    expect_refused(document, reason);
  };
  const auto refuse_without = [](const std::string& key, std::string_view reason) {
    json document = small_json();
    document["model"].erase(key);
    expect_refused(document, reason);
  };
  refuse("/model", 3, "model is not an object");
  refuse("/model/type", "Unigram", "model.type is \"Unigram\"; only \"BPE\" is supported");
  refuse_without("vocab", "the key model.vocab is missing");
  refuse_without("merges", "the key model.merges is missing");
  refuse("/model/vocab", 3, "model.vocab is not an object");
  refuse("/model/vocab/th", "x", "model.vocab[\"th\"] is \"x\", expected an id");
  refuse("/model/vocab/th", -1, "model.vocab[\"th\"] is -1, expected an id");
  refuse("/model/vocab/th", 257, "the id 257 belongs to both");
  refuse("/model/vocab/th", 400, "no token has the id 256; ids must be 0 to 400 without a gap");
  refuse("/model/vocab/\u20AC", 276, "no token has the id 267; ids must be 0 to 276 without a gap");
  refuse("/model/merges", 3, "model.merges is not an array");
  refuse("/model/merges/1", "a b c", "model.merges[1] is \"a b c\", expected");
  refuse("/model/merges/1", json::array({"a"}), "model.merges[1] is [\"a\"], expected");
  refuse("/model/merges/1", json::array({"zz", "a"}), "but \"zz\" is not in model.vocab");
  refuse("/model/merges/1", json::array({"z", "z"}), "but \"zz\" is not in model.vocab");
  refuse("/model/dropout", 0.1, "model.dropout is 0.1; only null is supported");
  refuse("/model/end_of_word_suffix", "</w>", "model.end_of_word_suffix is \"</w>\"");
  refuse("/added_tokens/0", 3, "added_tokens[0] is not an object");
  refuse("/added_tokens/0/id", "x", "added_tokens[0] needs a number as id");
  refuse("/added_tokens/0/id", 3, "added_tokens[0] \"<|bos|>\" has the id 3, but ids must go on without a gap: expected 267");
  refuse("/added_tokens/0/content", "th", "added_tokens[0] \"th\" has the id 267, but model.vocab gives it 256");
  refuse("/added_tokens/0/content", "", "added_tokens[0].content is empty");
  refuse("/added_tokens/1/content", "<|bos|>", "added_tokens[1] \"<|bos|>\" has the id 268, but");
  refuse("/added_tokens", 3, "added_tokens is not an array");
  refuse("/normalizer", {{"type", "BertNormalizer"}}, "normalizer \"BertNormalizer\" is not supported; supported are NFC");
  refuse("/normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "Nmt"}}}}}, "normalizer \"Nmt\" is not supported");
  refuse("/normalizer", {{"type", "Sequence"}}, "the key normalizer.normalizers is missing");
  refuse("/normalizer", {{"type", "Prepend"}}, "the key normalizer: Prepend.prepend is missing");
  refuse("/normalizer", {{"type", "Prepend"}, {"prepend", ""}}, "normalizer: Prepend.prepend is empty");
  refuse("/normalizer", {{"type", "Replace"}, {"pattern", "a"}, {"content", "b"}},
         "normalizer: Replace.pattern is \"a\", expected");
  refuse("/normalizer", {{"type", "Replace"}, {"pattern", {{"Regex", "^"}}}, {"content", "b"}}, "may match the empty text");
  refuse("/normalizer", "NFC", "normalizer is \"NFC\", expected an object with a type");
  refuse("/pre_tokenizer", nullptr, "pre_tokenizer is null, expected an object with a type");
  refuse("/pre_tokenizer", {{"type", "Whitespace"}}, "pre_tokenizer \"Whitespace\" is not supported");
  refuse("/pre_tokenizer/pretokenizers", json::array(), "pre_tokenizer has no step ByteLevel");
  refuse("/pre_tokenizer/pretokenizers/0", {{"type", "ByteLevel"}}, "pre_tokenizer: ByteLevel stands there twice");
  refuse("/pre_tokenizer/pretokenizers/0/behavior", "Doubled", "pre_tokenizer: Split.behavior \"Doubled\" is not supported");
  refuse("/pre_tokenizer/pretokenizers/0/pattern", {{"Text", " "}},
         "pre_tokenizer: Split.pattern is {\"Text\":\" \"}, expected");
  refuse("/pre_tokenizer/pretokenizers/0/pattern", {{"Regex", "[[:alpha:]]"}},
         "pre_tokenizer: Split: the pattern \"[[:alpha:]]\" uses a POSIX bracket");
  refuse("/pre_tokenizer/pretokenizers/0/pattern", {{"Regex", "a("}},
         "pre_tokenizer: Split: split pattern \"a(\" does not compile");
}

// The steps of a document in the form of a published tokenizer, with added tokens.
json with_steps() {
  json document = small_json();
  document["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "NFC"}}, {{"type", "Lowercase"}}}}};
  document["pre_tokenizer"]["pretokenizers"] = {
      {{"type", "Digits"}, {"individual_digits", true}},
      {{"type", "Split"}, {"pattern", {{"String", "-"}}}, {"behavior", "MergedWithNext"}, {"invert", false}},
      {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}}};
  document["added_tokens"].push_back({{"id", 276},
                                      {"content", "<Tool>"},
                                      {"single_word", false},
                                      {"lstrip", true},
                                      {"rstrip", false},
                                      {"normalized", false},
                                      {"special", false}});
  document["post_processor"] = {
      {"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", false}, {"use_regex", true}};
  return document;
}

TEST(HfJson, ReadsStepsAndAddedTokens) {
  const ByteBpeDefinition definition = read_bpe(with_steps());
  EXPECT_EQ(definition.steps.normalizer.size(), 2U);
  ASSERT_EQ(definition.steps.splits.size(), 3U);
  EXPECT_EQ(definition.steps.splits[1].pattern, "\\-");
  EXPECT_EQ(definition.steps.splits[1].behavior, SplitStep::Behavior::kMergedWithNext);
  EXPECT_TRUE(definition.steps.splits[2].add_prefix_space);
  EXPECT_EQ(definition.steps.added.size(), 10U);
  const ByteBpeTokenizer tokenizer(definition);
  // "The-in" is " the" " -" "in" "1" with a prefix space before each; the tool takes the space before it.
  EXPECT_THAT(tokenizer.encode("The-IN1  <Tool><tool>"),
              ElementsAre(259, ' ', '-', 260, ' ', '1', 276, ' ', '<', 't', 'o', 'o', 'l', '>'));
  EXPECT_EQ(tokenizer.vocab_size(), 277);
  EXPECT_EQ(tokenizer.token_bytes(276), "<Tool>");
  EXPECT_FALSE(tokenizer.is_special(276));
  EXPECT_TRUE(tokenizer.is_special(275));
  EXPECT_EQ(tokenizer.require_special("<|bos|>"), 267);
  EXPECT_EQ(tokenizer.token_byte_lengths()[276], 6);
  EXPECT_EQ(tokenizer.token_byte_lengths()[275], 0);
  EXPECT_NE(tokenizer.fingerprint(), ByteBpeTokenizer(testing::small_bpe_definition()).fingerprint());
}

TEST(HfJson, WritesStepsAsTheyWereRead) {
  const ByteBpeTokenizer tokenizer(read_bpe(with_steps()));
  const json written = json::parse(to_hf_json(tokenizer));
  for (const char* key : {"normalizer", "pre_tokenizer", "post_processor", "added_tokens", "decoder"}) {
    EXPECT_EQ(written[key], with_steps()[key]) << key;
  }
  EXPECT_EQ(ByteBpeTokenizer(read_bpe(written)).fingerprint(), tokenizer.fingerprint());
}

TEST(HfJson, SpecialTokensMayStandAnywhereInTheVocabulary) {
  ByteBpeDefinition first = testing::small_bpe_definition();
  first.specials = {};
  json document = json::parse(to_hf_json(ByteBpeTokenizer(first)));
  // As the package's trainer does: the special token first, all others behind it.
  for (auto& id : document["model"]["vocab"]) id = id.get<int>() + 1;
  document["model"]["vocab"]["<|endoftext|>"] = 0;
  document["added_tokens"] = {{{"id", 0}, {"content", "<|endoftext|>"}, {"special", true}},
                              {{"id", 268}, {"content", "   "}, {"special", false}, {"normalized", true}}};
  const ByteBpeTokenizer tokenizer(read_bpe(document));
  EXPECT_THAT(tokenizer.encode("the   x"), ElementsAre(259, 268, 'x' + 1));
  EXPECT_TRUE(tokenizer.is_special(0));
  EXPECT_FALSE(tokenizer.is_special(268));
  EXPECT_FALSE(tokenizer.specials_are_last());
  EXPECT_EQ(tokenizer.bos_id(), 0);
  for (const TokenId id : tokenizer.encode("<|endoftext|>")) EXPECT_NE(id, 0);
  const ByteBpeTokenizer again(read_bpe(json::parse(to_hf_json(tokenizer))));
  EXPECT_EQ(again.fingerprint(), tokenizer.fingerprint());
  EXPECT_THAT(again.encode("the   x"), ElementsAre(259, 268, 'x' + 1));
  // "   " is spelled otherwise in the vocabulary, so both may be there, special or not.
  document["added_tokens"][1]["content"] = "  ";
  document["added_tokens"][1]["special"] = true;
  EXPECT_EQ(ByteBpeTokenizer(read_bpe(document)).token_bytes(268), "  ");
  document["model"]["merges"].push_back({"<|endoftext|>", "a"});
  expect_refused(document, "but \"<|endoftext|>\" is a special token");
}

TEST(HfJson, ReadsPatternsAsOnigurumaDoes) {
  json document = small_json();
  const auto set = [&](const char* regex) {
    document["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {{"Regex", regex}};
    return ByteBpeTokenizer(read_bpe(document));
  };
  EXPECT_THAT(set("a{2}+").encode("aaaa"), ElementsAre(263));               // one piece: {2}+ repeats
  EXPECT_EQ(set("a$").pattern(), R"(a(?=\n|$))");
  EXPECT_EQ(set("gpt2").pattern(), "(?:gpt2)");                             // the letters
  const ByteBpeTokenizer tokenizer(testing::small_bpe_definition(R"(a{2}+$|\s)"));
  const json written = json::parse(to_hf_json(tokenizer));
  EXPECT_EQ(written["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"], R"((?>a{2})\z|\s)");
  EXPECT_EQ(ByteBpeTokenizer(read_bpe(written)).fingerprint(), tokenizer.fingerprint());
}

TEST(HfJson, TokensMustBePrintableBytes) {
  json document = small_json();
  document["model"]["vocab"].erase("th");
  document["model"]["vocab"]["t h"] = 256;
  document["model"]["merges"] = json::array();
  expect_refused(document, "token \"t h\": \" \" stands for no byte");
}

TEST(HfJson, RefusesOtherSentencepieceForms) {
  json document = small_sentencepiece_json();
  document["normalizer"] = {{"type", "Sequence"}, {"normalizers", json::array()}};
  expect_refused(document, "with model.byte_fallback only {");
  document = small_sentencepiece_json();
  document["pre_tokenizer"] = {{"type", "Metaspace"}};
  expect_refused(document, "pre_tokenizer is of type \"Metaspace\"; with model.byte_fallback only null is supported");
}

TEST(HfJson, ConfigNamesTheFirstAndLastTokens) {
  ByteBpeDefinition definition = testing::small_bpe_definition();
  definition.specials = {"<|endoftext|>"};
  const json gpt2 = json::parse(hf_tokenizer_config(ByteBpeTokenizer(definition)));
  EXPECT_EQ(gpt2["bos_token"], "<|endoftext|>");
  EXPECT_FALSE(gpt2.contains("eos_token"));
  definition.specials = {};
  EXPECT_FALSE(json::parse(hf_tokenizer_config(ByteBpeTokenizer(definition))).contains("bos_token"));
}

}  // namespace
}  // namespace nanochat
