#include "tokenizer/byte_bpe.h"

#include <ctime>

#include <gmock/gmock.h>
#include <rapidcheck/gtest.h>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/format.h"
#include "core/testing.h"
#include "tokenizer/load.h"
#include "tokenizer/testing_tokenizers.h"

namespace nanochat {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::IsEmpty;
using testing::small_bpe_definition;

const ByteBpeTokenizer& small() {
  static const ByteBpeTokenizer tokenizer(small_bpe_definition());
  return tokenizer;
}

// Bytes with the tokens of the small vocabulary, malformed UTF-8 and ordinary text in them.
rc::Gen<std::string> any_bytes() {
  return rc::gen::map(
      rc::gen::container<std::vector<std::string>>(rc::gen::oneOf(
          rc::gen::elementOf(testing::kSmallMerged), rc::gen::container<std::string>(rc::gen::arbitrary<char>()),
          rc::gen::elementOf(std::vector<std::string>{"\xE2\x82", "\xF0\x9F\x98\x80", "\xED\xA0\x80", "\xC0", " '", "12"}))),
      [](const std::vector<std::string>& parts) {
        std::string text;
        for (const std::string& part : parts) text += part;
        return text;
      });
}

TEST(ByteBpe, MergesByRankWithinPieces) {
  // " the" is a piece and a token; "then" is th + he + ... : "the" (rank 258) from "th" and "e", then "n".
  EXPECT_THAT(small().encode("then the"), ElementsAre(258, 'n', 259));
  EXPECT_THAT(small().encode("aaaaaa"), ElementsAre(263, 262));
  EXPECT_THAT(small().encode(""), IsEmpty());
  EXPECT_THAT(small().encode("t he"), ElementsAre('t', ' ', 257));
}

TEST(ByteBpe, DescribesItself) {
  EXPECT_EQ(small().type(), "bpe");
  EXPECT_EQ(small().vocab_size(), 256 + 11 + 9);
  EXPECT_EQ(small().first_special(), 267);
  EXPECT_EQ(small().pattern(), kNanochatPattern);
  EXPECT_EQ(small().token_bytes(259), " the");
  EXPECT_EQ(small().token_bytes(267), "<|bos|>");
  EXPECT_FALSE(small().ignore_merges());
  EXPECT_EQ(small().merges().size(), testing::kSmallMerged.size());
  EXPECT_EQ(small().fingerprint().size(), 64U);
}

TEST(ByteBpe, TextThatSpellsASpecialTokenIsText) {
  const std::vector<TokenId> ids = small().encode("<|bos|>");
  EXPECT_EQ(ids.size(), 7U);
  for (const TokenId id : ids) EXPECT_FALSE(small().is_special(id));
}

TEST(ByteBpe, MalformedBytesArePiecesOfTheirOwn) {
  const std::string text = "the\xFF\xFEthe";
  EXPECT_THAT(small().encode(text), ElementsAre(258, 0xFF, 0xFE, 258));
  EXPECT_THAT(small().encode("\xC3"), ElementsAre(0xC3));
  EXPECT_THAT(small().encode("\xC3\xA9"), ElementsAre(264));
}

TEST(ByteBpe, WhatThePatternSkipsIsEncodedToo) {
  const ByteBpeTokenizer words(small_bpe_definition("[a-z]+"));
  EXPECT_THAT(words.encode("  the\n\nin."), ElementsAre(265, 258, 266, 260, '.'));
}

RC_GTEST_PROP(ByteBpe, AnyBytesRoundTrip, ()) {
  const std::string text = *any_bytes();
  RC_ASSERT(small().decode(small().encode(text)) == text);
}

RC_GTEST_PROP(ByteBpe, StreamsDecodeToTheReplacedText, ()) {
  const auto ids = *rc::gen::container<std::vector<TokenId>>(rc::gen::inRange<TokenId>(0, 276));
  StreamDecoder decoder(small());
  std::string text;
  for (const TokenId id : ids) {
    const std::string part = decoder.push(id);
    RC_ASSERT(is_valid_utf8(part));
    text += part;
  }
  text += decoder.flush();
  RC_ASSERT(text == replace_invalid_utf8(small().decode(ids)));
}

RC_GTEST_PROP(ByteBpe, BatchesEqualSingleTexts, ()) {
  const auto texts = *rc::gen::container<std::vector<std::string>>(any_bytes());
  const auto batch = small().encode_batch(texts, 2);
  RC_ASSERT(batch.size() == texts.size());
  for (std::size_t i = 0; i < texts.size(); ++i) RC_ASSERT(batch[i] == small().encode(texts[i]));
}

TEST(ByteBpe, AMegabyteWithoutABoundaryIsQuick) {
  const std::clock_t start = std::clock();
  EXPECT_EQ(small().encode(std::string(1 << 20, 'a')).size(), (1 << 20) / 4U);
  EXPECT_EQ(small().encode(std::string(1 << 20, ' ')).size(), (1 << 20) / 2U);
  EXPECT_EQ(small().encode(std::string(1 << 20, '\xFF')).size(), 1U << 20);
  // Seconds of processor time. The quadratic loop takes minutes; this a fraction of a second: room for sanitizers.
  EXPECT_LT((std::clock() - start) / CLOCKS_PER_SEC, 20);
}

TEST(ByteBpe, SavesWhatLoadsAsTheSame) {
  for (const char* pattern : {"nanochat", "gpt2", "cl100k", "[a-z]+|\\s"}) {
    const ByteBpeTokenizer tokenizer(small_bpe_definition(pattern));
    const testing::TemporaryDirectory folder;
    tokenizer.save(folder.path());
    const auto loaded = load_tokenizer(folder.path());
    EXPECT_EQ(loaded->fingerprint(), tokenizer.fingerprint()) << pattern;
    EXPECT_EQ(loaded->special_tokens(), tokenizer.special_tokens());
    const std::string text = "The thing\n\n in the  \xFF then\xC3\xA9.";
    EXPECT_THAT(loaded->encode(text), ElementsAreArray(tokenizer.encode(text)));
    const std::string config = read_file(folder / "tokenizer_config.json");
    EXPECT_THAT(config, ::testing::HasSubstr("\"bos_token\": \"<|bos|>\""));
    EXPECT_THAT(config, ::testing::HasSubstr("\"eos_token\": \"<|assistant_end|>\""));
  }
}

TEST(ByteBpe, FingerprintTellsDifferencesApart) {
  ByteBpeDefinition other = small_bpe_definition();
  other.specials.pop_back();
  EXPECT_NE(ByteBpeTokenizer(other).fingerprint(), small().fingerprint());
  EXPECT_NE(ByteBpeTokenizer(small_bpe_definition("gpt2")).fingerprint(), small().fingerprint());
  other = small_bpe_definition();
  other.tokens.back() = "\n\t";
  other.merges = merges_from_ranks(other.tokens);
  EXPECT_NE(ByteBpeTokenizer(other).fingerprint(), small().fingerprint());
  EXPECT_EQ(ByteBpeTokenizer(small_bpe_definition()).fingerprint(), small().fingerprint());
}

TEST(ByteBpe, TokensThatDoNotMergeAreFoundWholeOrNotAtAll) {
  ByteBpeDefinition definition = small_bpe_definition();
  definition.tokens.push_back("xyz");  // no merge leads to it
  const ByteBpeTokenizer whole(definition);
  EXPECT_TRUE(whole.ignore_merges());
  EXPECT_THAT(whole.encode("xyz"), ElementsAre(267));
  definition.ignore_merges = false;
  const ByteBpeTokenizer merged(definition);
  EXPECT_THAT(merged.encode("xyz"), ElementsAre('x', 'y', 'z'));
  EXPECT_NE(whole.fingerprint(), merged.fingerprint());
  const testing::TemporaryDirectory folder;
  whole.save(folder.path());
  EXPECT_EQ(load_tokenizer(folder.path())->fingerprint(), whole.fingerprint());
}

TEST(ByteBpe, RefusesVocabulariesWithHoles) {
  ByteBpeDefinition definition = small_bpe_definition();
  definition.tokens['a'] = "zz";
  EXPECT_ERROR(ByteBpeTokenizer{definition}, TokenizerError, "byte 0x61 has no token");
  EXPECT_ERROR(merges_from_ranks(definition.tokens), TokenizerError, "byte 0x61 has no token");
  definition = small_bpe_definition();
  definition.tokens.push_back("the");
  EXPECT_ERROR(ByteBpeTokenizer{definition}, TokenizerError, "token 267 has the same bytes as token 258");
  definition = small_bpe_definition();
  definition.tokens.push_back("");
  EXPECT_ERROR(ByteBpeTokenizer{definition}, TokenizerError, "token 267 is empty");
  definition = small_bpe_definition();
  definition.specials.push_back("the");
  EXPECT_ERROR(ByteBpeTokenizer{definition}, TokenizerError, "token 276 has the same bytes as token 258");
}

}  // namespace
}  // namespace nanochat
