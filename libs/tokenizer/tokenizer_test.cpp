#include "tokenizer/tokenizer.h"

#include <gmock/gmock.h>

#include "core/errors.h"
#include "tokenizer/byte_bpe.h"
#include "tokenizer/testing_tokenizers.h"

namespace nanochat {
namespace {

ByteBpeTokenizer with_specials(std::vector<std::string> specials) {
  ByteBpeDefinition definition = testing::small_bpe_definition();
  definition.specials = std::move(specials);
  return ByteBpeTokenizer(definition);
}

TEST(Tokenizer, FindsSpecialTokens) {
  const ByteBpeTokenizer chat(testing::small_bpe_definition());
  EXPECT_EQ(chat.bos_id(), 267);
  EXPECT_EQ(chat.special_id("<|output_end|>"), 275);
  EXPECT_EQ(chat.special_id("<|nothing|>"), std::nullopt);
  EXPECT_EQ(chat.require_special("<|user_start|>"), 268);
  EXPECT_TRUE(chat.is_special(267));
  EXPECT_TRUE(chat.is_special(275));
  EXPECT_FALSE(chat.is_special(266));
  EXPECT_FALSE(chat.is_special(276));
  EXPECT_EQ(with_specials({"<|endoftext|>"}).bos_id(), 267);
}

TEST(Tokenizer, SaysWhichSpecialTokenIsMissing) {
  EXPECT_ERROR(with_specials({}).bos_id(), TokenizerError, "neither <|bos|> nor <|endoftext|>");
  EXPECT_ERROR(with_specials({}).require_special("<|bos|>"), TokenizerError, "no special token <|bos|>; it has none");
  EXPECT_ERROR(with_specials({"<a>", "<b>"}).require_special("<|bos|>"), TokenizerError, "it has <a> <b>");
}

TEST(Tokenizer, RefusesIdsOutOfRange) {
  const ByteBpeTokenizer chat(testing::small_bpe_definition());
  EXPECT_ERROR(chat.token_bytes(276), TokenizerError, "token id 276 is out of range; the vocabulary has 276 tokens");
  EXPECT_ERROR(chat.token_bytes(-1), TokenizerError, "token id -1");
  const std::vector<TokenId> ids = {65, 1000};
  EXPECT_ERROR(chat.decode(ids), TokenizerError, "token id 1000");
}

TEST(Tokenizer, CountsBytesOfOrdinaryTokensOnly) {
  const std::vector<std::int32_t> lengths = ByteBpeTokenizer(testing::small_bpe_definition()).token_byte_lengths();
  ASSERT_EQ(lengths.size(), 276U);
  EXPECT_EQ(lengths[0], 1);
  EXPECT_EQ(lengths[259], 4);
  EXPECT_EQ(lengths[267], 0);
  EXPECT_EQ(lengths[275], 0);
}

TEST(StreamDecoder, HoldsBackUnfinishedCharacters) {
  const ByteBpeTokenizer tokenizer(testing::small_bpe_definition());
  StreamDecoder decoder(tokenizer);
  EXPECT_EQ(decoder.push(0xE2), "");
  EXPECT_EQ(decoder.push(0x82), "");
  EXPECT_EQ(decoder.push(0xAC), "\xE2\x82\xAC");
  EXPECT_EQ(decoder.push('x'), "x");
  EXPECT_EQ(decoder.push(0xF0), "");
  EXPECT_EQ(decoder.push('y'), "\xEF\xBF\xBDy");
  EXPECT_EQ(decoder.push(0xFF), "\xEF\xBF\xBD");
  EXPECT_EQ(decoder.push(0xC3), "");
  EXPECT_EQ(decoder.flush(), "\xEF\xBF\xBD");
  EXPECT_EQ(decoder.flush(), "");
}

}  // namespace
}  // namespace nanochat
