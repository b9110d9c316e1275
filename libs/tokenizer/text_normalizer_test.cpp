#include "tokenizer/text_normalizer.h"

#include <ctime>

#include <gmock/gmock.h>
#include <rapidcheck/gtest.h>

#include "core/errors.h"
#include "core/format.h"
#include "tokenizer/testing_tokenizers.h"

namespace nanochat {
namespace {

using Kind = NormalizerStep::Kind;

std::string apply(const std::vector<Kind>& kinds, const std::string& text) {
  std::vector<NormalizerStep> steps;
  for (const Kind kind : kinds) steps.push_back({kind, "", "", true, true});
  return TextNormalizer(steps).apply(text);
}

// The expected texts are those of the PyPI package tokenizers 0.23.
TEST(TextNormalizer, ComposesAndDecomposes) {
  const std::string text = "Cafe\u0301 \uFB01 \u2163 \u212B";
  EXPECT_EQ(apply({Kind::kNfc}, text), "Caf\u00E9 \uFB01 \u2163 \u00C5");
  EXPECT_EQ(apply({Kind::kNfd}, text), "Cafe\u0301 \uFB01 \u2163 A\u030A");
  EXPECT_EQ(apply({Kind::kNfkc}, text), "Caf\u00E9 fi IV \u00C5");
  EXPECT_EQ(apply({Kind::kNfkd}, text), "Cafe\u0301 fi IV A\u030A");
}

TEST(TextNormalizer, KnowsHangulExclusionsAndTheOrderOfMarks) {
  EXPECT_EQ(apply({Kind::kNfc}, "\u0958\u1100\u1161\u11A8"), "\u0915\u093C\uAC01");
  EXPECT_EQ(apply({Kind::kNfd}, "\uAC01"), "\u1100\u1161\u11A8");
  EXPECT_EQ(apply({Kind::kNfc}, "a\u0307\u0323"), "\u1EA1\u0307");
  EXPECT_EQ(apply({Kind::kNfd}, "q\u0307\u0323\u0301\u0316"), "q\u0323\u0316\u0307\u0301");
}

TEST(TextNormalizer, LeavesAloneWhatThePackageDoesNotKnow) {
  EXPECT_EQ(apply({Kind::kNfkd}, "\u32FF\U0001F16C\U0001FBF0"), "\u32FF\U0001F16C\U0001FBF0");
  EXPECT_EQ(apply({Kind::kNfd}, "a\u1ABF\u0334"), "a\u1ABF\u0334");  // U+1ABF has a combining class since Unicode 13
  EXPECT_EQ(apply({Kind::kStripAccents}, "a\u1ABF\u0301\u1CF2"), "a\u1ABF");
}

TEST(TextNormalizer, LowersEveryCharacterByItself) {
  EXPECT_EQ(apply({Kind::kLowercase}, "\u0130STANBUL \u03A3\u0391\u03A3 \u01C5\uA7CB\U00010D50\U00016EA0"),
            "i\u0307stanbul \u03C3\u03B1\u03C3 \u01C6\u0264\U00010D70\U00016EBB");
  EXPECT_EQ(apply({Kind::kNfd, Kind::kStripAccents, Kind::kLowercase}, "Cr\u00E8me BR\u00DBL\u00C9E"), "creme brulee");
}

TEST(TextNormalizer, StripsPrependsAndReplaces) {
  EXPECT_EQ(apply({Kind::kStrip}, "\u00A0 a b\u2003\n"), "a b");
  EXPECT_EQ(apply({Kind::kStrip}, " \u3000"), "");
  EXPECT_EQ(TextNormalizer({{Kind::kStrip, "", "", true, false}}).apply(" a "), "a ");
  EXPECT_EQ(TextNormalizer({{Kind::kStrip, "", "", false, true}}).apply(" a "), " a");
  const TextNormalizer both({{Kind::kReplace, R"(\s+)", " "}, {Kind::kPrepend, "", ">"}, {Kind::kReplace, "b", "cc"}});
  EXPECT_EQ(both.apply("a \n b"), ">a cc");
  EXPECT_EQ(both.apply(""), "");
  EXPECT_ERROR(TextNormalizer({{Kind::kReplace, "(", ""}}), TokenizerError, "does not compile");
}

RC_GTEST_PROP(TextNormalizer, FormsAreStable, ()) {
  const auto characters = *rc::gen::container<std::vector<std::string>>(rc::gen::elementOf(std::vector<std::string>{
      "a", " ", "\u00E9", "\u0301", "\u0323", "\u0345", "\u1E69", "\uAC00", "\u11A8", "\uFB03", "\u1ABF", "\u0958", "\u0F73",
      "\u2126", "\U0001D15E", "\u4E2D"}));
  std::string text;
  for (const std::string& character : characters) text += character;
  for (const Kind kind : {Kind::kNfc, Kind::kNfd, Kind::kNfkc, Kind::kNfkd}) {
    const std::string once = apply({kind}, text);
    RC_ASSERT(is_valid_utf8(once));
    RC_ASSERT(apply({kind}, once) == once);
  }
  RC_ASSERT(apply({Kind::kNfc}, apply({Kind::kNfd}, text)) == apply({Kind::kNfc}, text));
}

TEST(TextNormalizer, AMegabyteOfMarksIsQuick) {
  std::string text = "a";
  while (text.size() < (1 << 20)) text += "\u0301\u0323";
  const std::clock_t start = std::clock();
  EXPECT_EQ(apply({Kind::kNfc}, text).size(),
            text.size() - 2 + 2);  // the first mark below composes: one byte for two, three for one
  // Seconds of processor time. A quadratic sort takes minutes; this a tenth of a second: room for sanitizers.
  EXPECT_LT((std::clock() - start) / CLOCKS_PER_SEC, 20);
}

}  // namespace
}  // namespace nanochat
