#include "tokenizer/train.h"

#include <algorithm>
#include <numeric>

#include <gmock/gmock.h>

#include "core/errors.h"
#include "tokenizer/document_sample.h"
#include "tokenizer/internal/sentencepiece_tokenizer.h"
#include "tokenizer/testing_tokenizers.h"

namespace nanochat {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::stream_of;

TokenizerTrainOptions options_for(std::int64_t vocab_size) {
  TokenizerTrainOptions options;
  options.vocab_size = vocab_size;
  return options;
}

bool has_piece(const Tokenizer& tokenizer, const std::string& bytes) {
  const auto ids = tokenizer.encode(bytes);
  return ids.size() == 1 && tokenizer.token_bytes(ids[0]) == bytes;
}

TEST(DocumentSample, KeepsAllThatFits) {
  DocumentSample sample(100, 1);
  for (const char* document : {"one", "two", "three"}) sample.offer(document);
  EXPECT_EQ(sample.bytes(), 11);
  EXPECT_THAT(sample.take(), ElementsAre("one", "two", "three"));
  EXPECT_EQ(sample.bytes(), 0);
}

TEST(DocumentSample, KeepsOneDocumentEvenIfTooLarge) {
  DocumentSample sample(3, 1);
  sample.offer("too large");
  EXPECT_THAT(sample.take(), ElementsAre("too large"));
}

TEST(DocumentSample, IsSpreadOverTheStreamInOrder) {
  DocumentSample sample(2000 * 5, 7);
  for (int i = 0; i < 20000; ++i) sample.offer(std::to_string(10000 + i));
  const auto kept = sample.take();
  EXPECT_EQ(kept.size(), 2000U);
  EXPECT_TRUE(std::is_sorted(kept.begin(), kept.end()));
  std::array<int, 4> quarters{};
  for (const std::string& document : kept) ++quarters[static_cast<std::size_t>((std::stoi(document) - 10000) / 5000)];
  for (const int count : quarters) EXPECT_NEAR(count, 500, 100);  // five standard deviations of the binomial
}

TEST(DocumentSample, DependsOnTheSeedAlone) {
  const auto draw = [](std::uint64_t seed) {
    DocumentSample sample(200, seed);
    for (int i = 0; i < 1000; ++i) sample.offer(std::to_string(i));
    return sample.take();
  };
  EXPECT_EQ(draw(1), draw(1));
  EXPECT_NE(draw(1), draw(2));
}

TEST(Train, IsDeterministic) {
  TokenizerTrainOptions options = options_for(450);
  options.max_bytes = 30'000;  // a sample
  const auto first = train_sentencepiece(stream_of(testing::small_corpus()), options);
  options.threads = 1;
  EXPECT_EQ(train_sentencepiece(stream_of(testing::small_corpus()), options)->fingerprint(), first->fingerprint());
  options.seed = 43;
  EXPECT_NE(train_sentencepiece(stream_of(testing::small_corpus()), options)->fingerprint(), first->fingerprint());
}

TEST(Train, LearnsNothingAcrossDigitsWordsOrScripts) {
  const auto tokenizer = testing::small_sentencepiece(500);
  EXPECT_EQ(tokenizer->vocab_size(), 500);
  for (TokenId id = 257; id < tokenizer->first_special(); ++id) {
    const std::string_view bytes = tokenizer->token_bytes(id);
    EXPECT_TRUE(bytes.size() == 1 || bytes.find_first_of("0123456789") == std::string_view::npos) << bytes;
    EXPECT_EQ(bytes.find(' ', std::min(bytes.find_first_not_of(' '), bytes.size())), std::string_view::npos) << bytes;
  }
  EXPECT_TRUE(has_piece(*tokenizer, "    "));
  EXPECT_TRUE(has_piece(*tokenizer, ".\n\n"));
}

TEST(Train, RareCharactersFallBackToBytes) {
  std::vector<std::string> documents(2000, "plain words and more plain words");
  documents.push_back("\u4F60");
  const auto tokenizer = train_sentencepiece(stream_of(documents), options_for(290));
  EXPECT_EQ(tokenizer->encode("\u4F60").size(), 3U);
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("\u4F60")), "\u4F60");
}

TEST(Train, ManyCharactersLeaveRoomForMerges) {
  std::string characters;
  for (int high = 0x84; high < 0x90; ++high) {
    for (int low = 0x80; low < 0xC0; ++low) characters += {'\xE4', static_cast<char>(high), static_cast<char>(low)};
  }
  std::vector<std::string> documents(10, characters + " hello hello hello");
  const auto tokenizer = train_sentencepiece(stream_of(documents), options_for(400));
  EXPECT_EQ(tokenizer->vocab_size(), 400);
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(characters)), characters);
}

TEST(Train, EverySymbolRoundTripsEvenWithoutASpaceInTheCorpus) {
  const auto tokenizer = train_sentencepiece(stream_of({"abcabcabc\nabc"}), options_for(272));
  const std::string text = std::string("a b\tc\r\n\0 ", 9) + "\u00A0";
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
}

TEST(Train, CutsDocumentsAtACharacter) {
  TokenizerTrainOptions options = options_for(270);
  options.max_document_bytes = 5;
  // Of "é" only two fit into five bytes; nothing of the z's is seen.
  const auto tokenizer = train_sentencepiece(stream_of({"\u00E9\u00E9\u00E9zzzzzzzz", "ab ab"}), options);
  EXPECT_TRUE(has_piece(*tokenizer, "\u00E9"));
  EXPECT_FALSE(dynamic_cast<const SentencePieceTokenizer&>(*tokenizer).pieces().empty());
  for (const std::string& piece : dynamic_cast<const SentencePieceTokenizer&>(*tokenizer).pieces()) {
    EXPECT_EQ(piece.find('z'), std::string::npos);
  }
}

TEST(Train, MalformedDocumentsAreReplaced) {
  const auto tokenizer = train_sentencepiece(stream_of({"abc abc \xFF\xFF abc"}), options_for(270));
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("abc")), "abc");
}

TEST(Train, SaysTheLargestVocabularyThatTheCorpusSupports) {
  std::string message;
  try {
    train_sentencepiece(stream_of({"ab ab ab"}), options_for(1000));
  } catch (const TokenizerError& error) {
    message = error.what();
  }
  ASSERT_THAT(message, HasSubstr("vocab_size 1000 is too large for this corpus, which supports at most "));
  const std::int64_t largest = std::stoll(message.substr(message.rfind(' ')));
  EXPECT_EQ(train_sentencepiece(stream_of({"ab ab ab"}), options_for(largest))->vocab_size(), largest);
}

TEST(Train, RefusesWhatCannotBe) {
  EXPECT_ERROR(train_sentencepiece(stream_of({}), options_for(300)), TokenizerError, "the corpus is empty");
  EXPECT_ERROR(train_sentencepiece(stream_of({"", ""}), options_for(300)), TokenizerError, "the corpus is empty");
  EXPECT_ERROR(train_sentencepiece(stream_of({"a"}), options_for(266)), ConfigError, "vocab_size is 266, expected 267");
  EXPECT_ERROR(train_sentencepiece(stream_of({"a"}), options_for(1 << 18)), ConfigError, "to 131072");
  TokenizerTrainOptions options = options_for(300);
  options.max_bytes = -1;
  EXPECT_ERROR(train_sentencepiece(stream_of({"a"}), options), ConfigError, "max_bytes is -1");
}

}  // namespace
}  // namespace nanochat
