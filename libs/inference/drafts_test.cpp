#include "inference/internal/drafts.h"

#include <gtest/gtest.h>

#include "core/random.h"
#include "inference/speculative.h"

namespace nanochat {
namespace {

using Ids = std::vector<std::int32_t>;

NgramDrafter drafter_of(const Ids& tokens) {
  NgramDrafter drafter;
  drafter.observe(tokens);
  return drafter;
}

Ids expected_tokens(const NgramDrafter& drafter, const Ids& tokens, std::int64_t count) {
  Ids expected;
  for (std::int64_t i = 0; i < count; ++i) expected.push_back(drafter.token(tokens, i));
  return expected;
}

TEST(NgramDrafter, ExpectsWhatFollowedTheLongestOccurrence) {
  const Ids tokens = {9, 1, 2, 3, 4, 5, 8, 2, 3, 6, 7, 9, 1, 2, 3};  // 9 1 2 3 is longer than the later 2 3
  EXPECT_EQ(expected_tokens(drafter_of(tokens), tokens, 3), (Ids{4, 5, 8}));
}

TEST(NgramDrafter, ExpectsWhatFollowedTheLastOfEqualOccurrences) {
  const Ids tokens = {1, 2, 3, 0, 1, 2, 4, 0, 5, 1, 2};
  EXPECT_EQ(drafter_of(tokens).token(tokens, 0), 4);
}

TEST(NgramDrafter, ExpectsNothingAfterOneTokenThatOccurredBefore) {
  EXPECT_FALSE(drafter_of({1, 2, 3, 4, 1}).expects());
  EXPECT_FALSE(drafter_of({1}).expects());
  EXPECT_TRUE(drafter_of({1, 2, 3, 4, 1, 2}).expects());
}

TEST(NgramDrafter, GoesRoundWhatIsShorterThanTheDraft) {
  const Ids two = {5, 6, 5, 6, 5, 6};
  EXPECT_EQ(expected_tokens(drafter_of(two), two, 5), (Ids{5, 6, 5, 6, 5}));
  const Ids one = {7, 7, 7};
  EXPECT_EQ(expected_tokens(drafter_of(one), one, 3), (Ids{7, 7, 7}));
}

TEST(NgramDrafter, FollowsAnOccurrenceUntilATokenDiffers) {
  Ids tokens = {1, 2, 3, 4, 5, 6, 0, 2, 3, 9, 0, 1, 2};
  NgramDrafter drafter = drafter_of(tokens);
  EXPECT_EQ(drafter.token(tokens, 0), 3);
  tokens.push_back(3);  // 2 3 occurred later too, but 1 2 3 goes on
  drafter.observe(tokens);
  EXPECT_EQ(drafter.token(tokens, 0), 4);
  tokens.push_back(8);
  drafter.observe(tokens);
  EXPECT_FALSE(drafter.expects());
}

TEST(NgramDrafter, LearnsFromTokensHoweverManyItSeesAtATime) {
  Rng rng(1);
  Ids tokens;
  for (int i = 0; i < 300; ++i) tokens.push_back(static_cast<std::int32_t>(rng.below(3)));
  NgramDrafter at_once = drafter_of({tokens.begin(), tokens.begin() + 10});
  NgramDrafter one_by_one = at_once;
  at_once.observe(tokens);
  for (std::ptrdiff_t end = 11; end <= 300; ++end) one_by_one.observe(Ids{tokens.begin(), tokens.begin() + end});
  ASSERT_EQ(at_once.expects(), one_by_one.expects());
  for (std::int64_t i = 0; i < 8; ++i) EXPECT_EQ(at_once.chance(i), one_by_one.chance(i));
}

TEST(NgramDrafter, IsSurerWhereTokensCameAsExpected) {
  Ids repeating, other;
  Rng rng(2);
  for (int i = 0; i < 200; ++i) {
    repeating.push_back(i % 20);
    other.push_back(static_cast<std::int32_t>(rng.below(5)));  // pairs occur again and again, but nothing follows from them
  }
  NgramDrafter surer = drafter_of({repeating.begin(), repeating.begin() + 40}), less_sure = drafter_of({1, 2, 1, 2});
  const double before = less_sure.chance(0);
  surer.observe(repeating);
  less_sure.observe(other);
  EXPECT_GT(surer.chance(0), 0.95);
  if (!less_sure.expects()) other.insert(other.end(), {other[0], other[1]});
  EXPECT_LT(less_sure.chance(0), 0.5);
  EXPECT_GT(before, 0.0);
}

// ------------------------------------------------------------------------------------------------- lengths of drafts

// A drafter that has seen its text `rounds` times over.
NgramDrafter sure_drafter() {
  Ids tokens;
  for (int i = 0; i < 400; ++i) tokens.push_back(i % 20);
  NgramDrafter drafter = drafter_of({tokens.begin(), tokens.begin() + 40});
  drafter.observe(tokens);
  return drafter;
}

constexpr StepCosts kCosts = {.row = 0.1, .wait = 0.0};

std::int64_t drafted(const NgramDrafter& drafter, std::int64_t rows, const StepCosts& costs, std::int64_t most = 15,
                     std::int64_t budget = 100) {
  std::vector<DraftCandidate> candidates = {{&drafter, 0, most}};
  plan_drafts(candidates, rows, rows, budget, costs);
  return candidates[0].drafted;
}

TEST(PlanDrafts, DraftsMoreWhereMoreIsExpected) {
  const NgramDrafter sure = sure_drafter(), unsure = drafter_of({1, 2, 3, 4, 5, 1, 2, 3});
  EXPECT_EQ(drafted(sure, 1, kCosts), 15);
  EXPECT_GE(drafted(unsure, 1, kCosts), 1);
  EXPECT_LT(drafted(unsure, 1, kCosts), 5);
}

TEST(PlanDrafts, KeepsToItsBounds) {
  const NgramDrafter sure = sure_drafter();
  EXPECT_EQ(drafted(sure, 1, kCosts, /*most=*/4), 4);
  EXPECT_EQ(drafted(sure, 1, kCosts, /*most=*/0), 0);
  EXPECT_EQ(drafted(sure, 1, kCosts, /*most=*/15, /*budget=*/6), 6);
  EXPECT_EQ(drafted(sure, 1, kCosts, /*most=*/15, /*budget=*/-1), 0);
}

TEST(PlanDrafts, DraftsNothingWhereARowCostsMoreThanItIsLikelyToBring) {
  EXPECT_EQ(drafted(drafter_of({1, 2, 3, 1, 2}), 1, {.row = 0.2, .wait = 0.0}), 0);
  EXPECT_EQ(drafted(sure_drafter(), 1, {.row = 1.0, .wait = 0.0}), 0);
}

// The more sequences a step has, the nearer it is to paying for each row what the row brings.
TEST(PlanDrafts, DraftsNothingUnsureInAFullStep) {
  const NgramDrafter unsure = drafter_of({1, 2, 3, 4, 5, 1, 2, 3});
  EXPECT_EQ(drafted(unsure, 64, kCosts), 0);
  EXPECT_GT(drafted(sure_drafter(), 64, kCosts), 0);
}

TEST(PlanDrafts, DraftsNothingIfTheWaitCostsMoreThanAllDraftsBring) {
  const NgramDrafter unsure = drafter_of({1, 2, 3, 4, 5, 1, 2, 3});
  EXPECT_GT(drafted(unsure, 1, {.row = 0.05, .wait = 0.05}), 0);
  EXPECT_EQ(drafted(unsure, 1, {.row = 0.05, .wait = 0.9}), 0);
}

TEST(PlanDrafts, CountsTokensThatAreBeingDrawn) {
  const NgramDrafter unsure = drafter_of({1, 2, 3, 4, 5, 1, 2, 3});
  std::vector<DraftCandidate> now = {{&unsure, 0, 15}}, later = {{&unsure, 1, 15}};
  plan_drafts(now, 1, 1, 100, kCosts);
  plan_drafts(later, 1, 1, 100, kCosts);
  EXPECT_LT(later[0].drafted, now[0].drafted);
}

TEST(Speculative, HasNames) {
  EXPECT_EQ(speculative_of_name("ngram"), Speculative::kNgram);
  EXPECT_EQ(speculative_of_name("none"), Speculative::kNone);
  EXPECT_EQ(speculative_of_name("ngrams"), std::nullopt);
  EXPECT_EQ(speculative_name(Speculative::kNgram), "ngram");
}

}  // namespace
}  // namespace nanochat
