#include "core/random.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <stdexcept>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

namespace nanochat {
namespace {

using ::testing::ElementsAre;

TEST(RngTest, SeedsThroughSplitMix64AsPublished) {
  // Outputs of the public-domain splitmix64.c for seed 1234567.
  const std::array<std::uint64_t, 4> expected = {6457827717110365317ULL, 3203168211198807973ULL, 9817491932198370423ULL,
                                                 4593380528125082431ULL};
  EXPECT_EQ(Rng(1234567).state(), expected);
}

TEST(RngTest, DrawsXoshiro256StarStarAsPublished) {
  Rng rng;
  rng.set_state({1, 2, 3, 4});
  for (const std::uint64_t expected :
       {11520ULL, 0ULL, 1509978240ULL, 1215971899390074240ULL, 1216172134540287360ULL, 607988272756665600ULL,
        16172922978634559625ULL, 8476171486693032832ULL, 10595114339597558777ULL, 2904607092377533576ULL}) {
    EXPECT_EQ(rng.next(), expected);
  }
}

TEST(RngTest, RestoredStateContinuesTheStream) {
  Rng rng(5);
  rng.next();
  Rng other(6);
  other.set_state(rng.state());
  EXPECT_EQ(other.next(), rng.next());
  EXPECT_NE(Rng(5).next(), Rng(6).next());
}

TEST(RngTest, BelowIsUniformAndInRange) {
  Rng rng(1);
  constexpr int kDraws = 60000;
  std::array<int, 6> counts{};
  for (int i = 0; i < kDraws; ++i) ++counts.at(rng.below(6));
  // Each count is binomial with mean 10,000 and standard deviation 91: five of them.
  for (const int count : counts) EXPECT_NEAR(count, kDraws / 6, 5 * 91);
}

TEST(RngTest, BelowRejectsTheDrawsThatWouldFavourSomeValues) {
  // With n = 3 * 2^62, keeping the high half of every product would give a third of the values twice the weight of
  // the others: the share of draws below n / 3 would still be 1/3, but values = 0 mod 3 would come up 1/2 the time.
  const std::uint64_t n = std::uint64_t{3} << 62;
  Rng rng(2);
  constexpr int kDraws = 30000;
  int multiples = 0;
  for (int i = 0; i < kDraws; ++i) {
    const std::uint64_t value = rng.below(n);
    ASSERT_LT(value, n);
    multiples += value % 3 == 0;
  }
  EXPECT_NEAR(multiples, kDraws / 3, 5 * 82);  // standard deviation 82
}

TEST(RngTest, EmptyRangesAreErrors) {
  Rng rng;
  EXPECT_THROW(rng.below(0), std::invalid_argument);
  EXPECT_THROW(rng.between(2, 1), std::invalid_argument);
}

TEST(RngTest, BetweenReachesBothEndsAndTakesTheWholeRange) {
  Rng rng(3);
  std::set<std::int64_t> seen;
  for (int i = 0; i < 200; ++i) seen.insert(rng.between(-2, 2));
  EXPECT_THAT(seen, ElementsAre(-2, -1, 0, 1, 2));
  constexpr std::int64_t kLow = std::numeric_limits<std::int64_t>::min();
  constexpr std::int64_t kHigh = std::numeric_limits<std::int64_t>::max();
  bool negative = false, positive = false;
  for (int i = 0; i < 64; ++i) {
    const std::int64_t value = rng.between(kLow, kHigh);
    negative |= value < 0;
    positive |= value > 0;
  }
  EXPECT_TRUE(negative && positive);
  EXPECT_EQ(rng.between(kHigh, kHigh), kHigh);
}

TEST(RngTest, UniformAndNormalHaveTheirMoments) {
  Rng rng(4);
  constexpr int kDraws = 100000;
  double uniform_sum = 0, sum = 0, squares = 0, fourth = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double u = rng.uniform();
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    uniform_sum += u;
    const double x = rng.normal();
    sum += x;
    squares += x * x;
    fourth += x * x * x * x;
  }
  // Five standard deviations of each mean: sqrt(1/12 / n), sqrt(1 / n), sqrt(2 / n), sqrt(96 / n).
  const double root = 5 / std::sqrt(static_cast<double>(kDraws));
  EXPECT_NEAR(uniform_sum / kDraws, 0.5, root * std::sqrt(1.0 / 12));
  EXPECT_NEAR(sum / kDraws, 0, root);
  EXPECT_NEAR(squares / kDraws, 1, root * std::sqrt(2.0));
  EXPECT_NEAR(fourth / kDraws, 3, root * std::sqrt(96.0));
}

TEST(RngTest, ShuffleIsAPermutationFixedBySeed) {
  EXPECT_TRUE(rc::check([](std::vector<int> items, std::uint64_t seed) {
    std::vector<int> first = items, second = items;
    Rng(seed).shuffle(first);
    Rng(seed).shuffle(second);
    RC_ASSERT(first == second);
    std::sort(first.begin(), first.end());
    std::sort(items.begin(), items.end());
    RC_ASSERT(first == items);
  }));
}

TEST(RngTest, ChooseReachesEveryItem) {
  Rng rng(7);
  const std::vector<std::string> items = {"a", "b", "c"};
  std::set<std::string> seen;
  for (int i = 0; i < 100; ++i) seen.insert(rng.choose(items));
  EXPECT_EQ(seen.size(), items.size());
}

TEST(DeriveSeedTest, DependsOnSeedAndLabelAlone) {
  EXPECT_EQ(derive_seed(1, "loader"), derive_seed(1, "loader"));
  std::set<std::uint64_t> seen;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    for (const char* label : {"", "loader", "init", "sampler"}) seen.insert(derive_seed(seed, label));
  }
  EXPECT_EQ(seen.size(), 400u);
}

// The literals below were printed by CPython 3.11.
TEST(PythonRandomTest, DrawsAsCPython) {
  struct Case {
    std::uint64_t seed;
    std::array<std::uint32_t, 3> words;
    double first, second;
    std::uint64_t bit, bits40, bits64;
  };
  const Case cases[] = {{0,
                         {3626764237U, 1654615998U, 3255389356U},
                         0.890243920837131,
                         0.04048437818077755,
                         1,
                         534771852898ULL,
                         16938433693753131896ULL},
                        {42,
                         {2746317213U, 478163327U, 107420369U},
                         0.7415504997598329,
                         0.24489185380347622,
                         0,
                         114832269481ULL,
                         13662908291426823533ULL},
                        {1234,
                         {4150886329U, 3342196574U, 1892932127U},
                         0.11685051774599753,
                         0.09064360641670188,
                         1,
                         888797392593ULL,
                         644274044980223449ULL},
                        {4294967303ULL,
                         {968553300U, 3287823873U, 1540179448U},
                         0.34300734698201063,
                         0.062261983456882164,
                         0,
                         721220457554ULL,
                         916974717966235440ULL},
                        {9223372036854775813ULL,
                         {1478493593U, 736485321U, 1981690036U},
                         0.6235683418995158,
                         0.034315528002349494,
                         0,
                         130025610127ULL,
                         5198360912670466567ULL}};
  for (const Case& c : cases) {
    SCOPED_TRACE(c.seed);
    PythonRandom random(c.seed);
    for (const std::uint32_t word : c.words) EXPECT_EQ(random.bits32(), word);
    EXPECT_EQ(random.random(), c.first);
    EXPECT_EQ(random.random(), c.second);
    EXPECT_EQ(random.getrandbits(1), c.bit);
    EXPECT_EQ(random.getrandbits(40), c.bits40);
    EXPECT_EQ(random.getrandbits(64), c.bits64);
  }
}

TEST(PythonRandomTest, RandbelowAsCPython) {
  PythonRandom random(1234);
  std::vector<std::uint64_t> drawn;
  for (const std::uint64_t n : {std::uint64_t{1}, std::uint64_t{2}, std::uint64_t{3}, std::uint64_t{10}, std::uint64_t{1000},
                                std::uint64_t{1} << 32, (std::uint64_t{1} << 40) + 1}) {
    drawn.push_back(random.randbelow(n));
  }
  EXPECT_THAT(drawn, ElementsAre(0, 0, 0, 1, 932, 2976787804ULL, 521214191144ULL));
}

TEST(PythonRandomTest, SampleAsCPythonOnBothSidesOfItsSetSize) {
  const auto sample = [](std::uint64_t seed, std::size_t population, std::size_t k) {
    return PythonRandom(seed).sample(population, k);
  };
  EXPECT_THAT(sample(1234, 10, 3), ElementsAre(7, 1, 0));
  EXPECT_THAT(sample(1234, 21, 5), ElementsAre(14, 3, 0, 2, 1));   // from a list
  EXPECT_THAT(sample(1234, 22, 5), ElementsAre(14, 3, 0, 2, 18));  // from a set
  EXPECT_THAT(sample(7, 85, 6), ElementsAre(41, 19, 50, 6, 9, 68));
  EXPECT_THAT(sample(7, 86, 6), ElementsAre(41, 19, 50, 83, 6, 9));
  EXPECT_THAT(sample(1237, 1000, 10), ElementsAre(152, 908, 405, 316, 245, 973, 233, 359, 512, 639));
  EXPECT_THAT(sample(99, 277, 25), ElementsAre(206, 194, 102, 91, 117, 127, 68, 44, 128, 196, 45, 250, 274, 215, 110, 191, 198,
                                               108, 77, 236, 273, 173, 21, 242, 183));
  EXPECT_THAT(sample(99, 278, 25), ElementsAre(206, 194, 102, 91, 117, 127, 68, 44, 128, 196, 271, 275, 45, 250, 215, 110, 191,
                                               198, 108, 77, 236, 173, 42, 270, 240));
  EXPECT_THAT(sample(3, 5, 5), ElementsAre(1, 4, 3, 2, 0));
  EXPECT_THAT(sample(3, 5, 0), ElementsAre());
}

TEST(PythonRandomTest, ShuffleAsCPython) {
  const auto shuffled = [](std::uint64_t seed, int n) {
    std::vector<int> items;
    for (int i = 0; i < n; ++i) items.push_back(i);
    PythonRandom(seed).shuffle(items);
    return items;
  };
  EXPECT_THAT(shuffled(42, 10), ElementsAre(7, 3, 2, 8, 5, 6, 9, 4, 0, 1));
  EXPECT_THAT(shuffled(0, 20), ElementsAre(10, 18, 16, 14, 0, 17, 11, 2, 3, 9, 5, 7, 4, 19, 6, 15, 8, 1, 13, 12));
  EXPECT_THAT(shuffled(5, 1), ElementsAre(0));
  EXPECT_THAT(shuffled(5, 0), ElementsAre());
}

TEST(PythonRandomTest, AgreesAfterTheStateWasRegenerated) {
  PythonRandom random(2024);
  for (int i = 0; i < 2000; ++i) random.random();
  EXPECT_EQ(random.getrandbits(32), 655665397u);
  EXPECT_THAT(random.sample(100, 10), ElementsAre(16, 64, 61, 20, 17, 82, 90, 5, 43, 71));
}

TEST(PythonRandomTest, ImpossibleDrawsAreErrors) {
  PythonRandom random(1);
  EXPECT_THROW(random.randbelow(0), std::invalid_argument);
  EXPECT_THROW(random.getrandbits(0), std::invalid_argument);
  EXPECT_THROW(random.getrandbits(65), std::invalid_argument);
  EXPECT_THROW(random.sample(3, 4), std::invalid_argument);
}

}  // namespace
}  // namespace nanochat
