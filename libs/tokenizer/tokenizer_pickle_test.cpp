#include "tokenizer/tokenizer_pickle.h"

#include <gmock/gmock.h>

#include "core/errors.h"
#include "core/pickle.h"
#include "core/random.h"
#include "core/testing.h"
#include "tokenizer/load.h"
#include "tokenizer/testing_tokenizers.h"
#include "tokenizer/tiktoken_file.h"

namespace nanochat {
namespace {

using namespace std::string_literals;

// The opcodes that CPython's pickle.dump(encoding, protocol=4) writes for 256 bytes, two merged tokens and two
// special ones, memo and batches included.
std::string python_pickle() {
  std::string bytes =
      "\x80\x04\x95\xff\x00\x00\x00\x00\x00\x00\x00\x8c\x0dtiktoken.core\x94\x8c\x08"s
      "Encoding\x94\x93\x94)\x81\x94}\x94(\x8c\x04name\x94\x8c\x07rustbpe\x94\x8c\x07pat_str\x94\x8c\x06\\S+|\\s\x94"
      "\x8c\x0fmergeable_ranks\x94}\x94("s;
  for (int byte = 0; byte < 256; ++byte) {
    bytes += "C\x01"s + static_cast<char>(byte) + "\x94K"s + static_cast<char>(byte);
    if (byte == 199) bytes += "u("s;  // Python fills a dict in batches
  }
  bytes += "C\x02th\x94M\x00\x01"s + "C\x03the\x94M\x01\x01u"s;
  bytes += "\x8c\x0especial_tokens\x94}\x94(\x8c\x07<|bos|>\x94M\x02\x01\x8c\x07<|eos|>\x94M\x03\x01u"s;
  return bytes + "ub."s;
}

std::string error_of(const std::string& bytes) {
  try {
    parse_tokenizer_pickle(bytes, "t.pkl");
  } catch (const TokenizerError& error) {
    return error.what();
  }
  return "no error";
}

// An Encoding whose state is whatever `state` writes.
std::string encoding_with(const std::function<void(PickleWriter&)>& state) {
  PickleWriter writer(4);
  writer.global("tiktoken.core", "Encoding");
  writer.empty_tuple();
  writer.new_object();
  state(writer);
  writer.build();
  return writer.finish();
}

TEST(TokenizerPickle, ReadsWhatPythonWrites) {
  const ByteBpeDefinition definition = parse_tokenizer_pickle(python_pickle(), "t.pkl");
  EXPECT_EQ(definition.pattern, "\\S+|\\s");
  ASSERT_EQ(definition.tokens.size(), 258U);
  EXPECT_EQ(definition.tokens[0], "\0"s);
  EXPECT_EQ(definition.tokens[255], "\xff");
  EXPECT_EQ(definition.tokens[257], "the");
  EXPECT_EQ(definition.specials, (std::vector<std::string>{"<|bos|>", "<|eos|>"}));
  const ByteBpeTokenizer tokenizer(definition);
  EXPECT_EQ(tokenizer.encode("the th"), (std::vector<TokenId>{257, ' ', 256}));
  EXPECT_EQ(tokenizer.require_special("<|eos|>"), 259);
}

TEST(TokenizerPickle, IsLoadedByNameOrContents) {
  const nanochat::testing::TemporaryDirectory folder;
  testing::write_text(folder / "tokenizer.pkl", python_pickle());
  testing::write_text(folder / "other", python_pickle());
  const auto loaded = load_tokenizer(folder.path());
  EXPECT_EQ(loaded->vocab_size(), 260);
  EXPECT_EQ(load_tokenizer(folder / "other")->fingerprint(), loaded->fingerprint());
  TokenizerLoadOptions options;
  options.pattern = "gpt2";
  EXPECT_ERROR(load_tokenizer(folder / "tokenizer.pkl", options), ConfigError, "has a split pattern of its own");
}

TEST(TokenizerPickle, ReturnsWhatWasWritten) {
  for (const char* pattern : {"nanochat", "gpt2", "cl100k"}) {
    const ByteBpeTokenizer tokenizer(testing::small_bpe_definition(pattern));
    const ByteBpeTokenizer back(parse_tokenizer_pickle(to_tokenizer_pickle(tokenizer), "t.pkl"));
    EXPECT_EQ(back.fingerprint(), tokenizer.fingerprint());
  }
}

TEST(TokenizerPickle, RanksReturnToo) {
  const ByteBpeTokenizer tokenizer(testing::small_bpe_definition());
  const std::string ranks = to_tiktoken_ranks(tokenizer);
  EXPECT_EQ(ranks, testing::rank_file(testing::small_ranks()));
}

TEST(TokenizerPickle, RefusesMergesInAnotherOrder) {
  ByteBpeDefinition definition = testing::small_bpe_definition();
  std::reverse(definition.merges.begin(), definition.merges.end());
  for (std::size_t i = 0; i < definition.merges.size(); ++i) definition.merges[i].rank = static_cast<std::uint32_t>(i);
  definition.ignore_merges = false;
  const ByteBpeTokenizer tokenizer(definition);
  EXPECT_ERROR(to_tokenizer_pickle(tokenizer), TokenizerError, "not in the order of its ids");
  EXPECT_ERROR(to_tiktoken_ranks(tokenizer), TokenizerError, "not in the order of its ids");
}

TEST(TokenizerPickle, RefusesAnythingElse) {
  EXPECT_EQ(error_of("N."), "t.pkl: holds None, expected a tiktoken.core.Encoding");
  EXPECT_EQ(error_of("cos\nsystem\n(X\x02\x00\x00\x00lstR."s), "t.pkl: holds os.system, expected a tiktoken.core.Encoding");
  EXPECT_EQ(error_of(encoding_with([](PickleWriter& writer) { writer.string("cl100k_base"); })),
            "t.pkl: only names the published encoding \"cl100k_base\"; use its rank file instead");
  EXPECT_EQ(error_of(encoding_with([](PickleWriter& writer) { writer.empty_dict(); })),
            "t.pkl: lacks pat_str, mergeable_ranks or special_tokens");
  EXPECT_THAT(error_of(encoding_with([](PickleWriter& writer) {
                writer.empty_dict();
                writer.mark();
                writer.string("explicit_n_vocab");
                writer.integer(5);
                writer.set_items();
              })),
              ::testing::HasSubstr("has the field \"explicit_n_vocab\" twice, or it is none of an Encoding's"));

  const std::string good = python_pickle();
  const auto replaced = [&](const std::string& from, const std::string& to) {
    std::string bytes = good;
    const std::size_t at = bytes.find(from);
    EXPECT_NE(at, std::string::npos);
    return error_of(bytes.replace(at, from.size(), to));
  };
  EXPECT_THAT(replaced("C\x02th\x94M\x00\x01"s, "C\x02th\x94M\x05\x01"s), ::testing::HasSubstr("mergeable_ranks has 261"));
  EXPECT_THAT(replaced("C\x02th\x94M\x00\x01"s, "C\x02th\x94M\x01\x01"s), ::testing::HasSubstr("each once"));
  EXPECT_THAT(replaced("C\x02th\x94"s, "C\x03the\x94"s), ::testing::HasSubstr("a token twice"));
  EXPECT_THAT(replaced("<|eos|>\x94M\x03\x01"s, "<|eos|>\x94M\x04\x01"s),
              ::testing::HasSubstr("special_tokens has 260 for its entry 1, expected the 2 numbers from 258 on"));
  EXPECT_THAT(replaced("<|eos|>"s, "<|\xff\xff\xff|>"s), ::testing::HasSubstr("a special token is not UTF-8"));
  EXPECT_THAT(replaced("C\x01"
                       "A\x94K"
                       "A"s,
                       "C\x02"
                       "AA\x94K"
                       "A"s),
              ::testing::HasSubstr("byte 0x41 has no token"));
  EXPECT_THAT(replaced("C\x02th\x94"s, "\x8c\x02th\x94"s), ::testing::HasSubstr("found a string, expected bytes"));
  std::string longest = "B"s + "\x88\x13\x00\x00"s + std::string(5000, 'x');
  EXPECT_THAT(replaced("C\x02th"s, longest), ::testing::HasSubstr("5000 bytes long; at most 4096"));
}

TEST(TokenizerPickle, DamageIsAnErrorOrAnotherTokenizer) {
  const std::string original = python_pickle();
  Rng rng(20251124);
  int refused = 0;
  constexpr int kRounds = 1000;
  for (int round = 0; round < kRounds; ++round) {
    std::string bytes = original;
    switch (round % 4) {
      case 0: bytes.resize(rng.below(bytes.size())); break;
      case 1: bytes[rng.below(bytes.size())] ^= static_cast<char>(1 << rng.below(8)); break;
      case 2: std::swap(bytes[rng.below(bytes.size())], bytes[rng.below(bytes.size())]); break;
      default: bytes.insert(rng.below(bytes.size()), 1 + rng.below(9), static_cast<char>(rng.below(256))); break;
    }
    try {
      const ByteBpeTokenizer tokenizer(parse_tokenizer_pickle(bytes, "t.pkl"));
      ASSERT_EQ(tokenizer.decode(tokenizer.encode("the quick")), "the quick");
      ASSERT_NE(round % 4, 0) << "a truncated file was accepted";
    } catch (const TokenizerError& error) {
      ASSERT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
      ++refused;
    }
  }
  EXPECT_GT(refused, kRounds / 2);
}

}  // namespace
}  // namespace nanochat
