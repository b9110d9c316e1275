#include "tokenizer/added_tokens.h"

#include <gmock/gmock.h>

#include "core/errors.h"
#include "tokenizer/testing_tokenizers.h"

namespace nanochat {
namespace {

using ::testing::ElementsAre;

AddedToken token(TokenId id, const std::string& content) {
  AddedToken made;
  made.id = id;
  made.content = content;
  return made;
}

// Text between tokens as it is, tokens as #id.
std::vector<std::string> find(const AddedTokens& tokens, const std::string& text, bool normalized = false) {
  std::vector<std::string> parts;
  tokens.find(
      text, normalized, [&](std::string_view stretch) { parts.emplace_back(stretch); },
      [&](TokenId id) { parts.push_back("#" + std::to_string(id)); });
  return parts;
}

AddedTokens sample() {
  AddedToken word = token(2, "word"), left = token(3, "<l>"), right = token(4, "<r>"), special = token(6, "<s>");
  word.single_word = left.lstrip = right.rstrip = special.special = true;
  return {{token(0, "<a>"), token(1, "<ab>"), word, left, right, token(5, "  "), special, token(7, "s>x")}, {}};
}

// The expected parts are those of the PyPI package tokenizers 0.23 with encode_special_tokens.
TEST(AddedTokens, AreFoundLeftmostAndLongest) {
  const AddedTokens tokens = sample();
  EXPECT_THAT(find(tokens, "x<ab><a>"), ElementsAre("x", "#1", "#0"));
  EXPECT_THAT(find(tokens, "none"), ElementsAre("none"));
  EXPECT_THAT(find(tokens, ""), ElementsAre());
}

TEST(AddedTokens, OfOneWordStandAlone) {
  EXPECT_THAT(find(sample(), "sword word word_ word"), ElementsAre("sword ", "#2", " word_ ", "#2"));
  EXPECT_THAT(find(sample(), "word\u0301 word\u200D"), ElementsAre("word\u0301 word\u200D"));
  EXPECT_THAT(find(sample(), "word\u00B2"), ElementsAre("#2", "\u00B2"));
}

TEST(AddedTokens, TakeTheWhiteSpaceBesideThem) {
  const AddedTokens tokens = sample();
  EXPECT_THAT(find(tokens, "a \u00A0 <l>b"), ElementsAre("a", "#3", "b"));
  EXPECT_THAT(find(tokens, "a  <l>b"), ElementsAre("a", "#5", "#3", "b"));  // the spaces are a token themselves
  EXPECT_THAT(find(tokens, "a<r>  b"), ElementsAre("a", "#4", "#5", "b"));  // which is found even where they were taken
  EXPECT_THAT(find(tokens, "<r>   <r>"), ElementsAre("#4", "#5", " ", "#4"));
}

TEST(AddedTokens, SpecialOnesAreTextThatHidesOthers) {
  EXPECT_THAT(find(sample(), "<s>x s>x"), ElementsAre("<s>x ", "#7"));
  AddedToken special = token(0, "<s>");
  special.special = true;
  EXPECT_FALSE(AddedTokens({special}, {}).any(false));
}

TEST(AddedTokens, OfNormalizedTextAreNormalizedToo) {
  const TextNormalizer lower({{NormalizerStep::Kind::kLowercase, "", "", false, false}});
  AddedToken day = token(0, "Day");
  day.normalized = true;
  const AddedTokens tokens({day, token(1, "[DAY]")}, lower);
  EXPECT_THAT(find(tokens, "MonDAY [DAY]"), ElementsAre("MonDAY ", "#1"));
  EXPECT_THAT(find(tokens, "monday", true), ElementsAre("mon", "#0"));
}

TEST(AddedTokens, MustDiffer) {
  const TextNormalizer lower({{NormalizerStep::Kind::kLowercase, "", "", false, false}});
  AddedToken a = token(0, "A"), b = token(1, "a");
  a.normalized = b.normalized = true;
  EXPECT_ERROR(AddedTokens({a, b}, lower), TokenizerError, "\"A\" and \"a\" are the same text once they are normalized");
  EXPECT_ERROR(AddedTokens({token(0, "A"), token(1, "A")}, {}), TokenizerError, "are the same text");
  const TextNormalizer strip({{NormalizerStep::Kind::kStrip, "", "", true, true}});
  a.content = "  ";
  EXPECT_ERROR(AddedTokens({a}, strip), TokenizerError, "the added token \"  \" is empty once it is normalized");
}

}  // namespace
}  // namespace nanochat
