#include "data/checks/contamination.h"

#include <gtest/gtest.h>

namespace nanochat {
namespace {

TEST(Contamination, NamesTheRowsThatTheCorpusHas) {
  ContaminationCheck check(5);
  EXPECT_TRUE(check.add_row("a.jsonl:1", "Natalia sold clips to 48 of her friends in April."));
  EXPECT_TRUE(check.add_row("a.jsonl:2", "A train leaves the station at noon, going east."));
  EXPECT_FALSE(check.add_row("a.jsonl:3", "too short to tell"));
  EXPECT_EQ(check.rows(), 3U);
  check.scan("nothing of that kind stands in this document at all", "corpus: document 0");
  EXPECT_TRUE(check.contaminated().empty());
  // Case, punctuation and line breaks do not hide it.
  check.scan("He said: natalia SOLD clips,\nto 48 of other people's friends", "corpus: document 1");
  check.scan("natalia sold clips to 48 of her friends in april", "corpus: document 2");
  const auto rows = check.contaminated();
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0].name, "a.jsonl:1");
  EXPECT_EQ(rows[0].first, "corpus: document 1");
  EXPECT_EQ(rows[0].grams, 6U);  // ten words
  EXPECT_EQ(rows[0].found, 6U);
  EXPECT_DOUBLE_EQ(rows[0].share(), 1.0);
}

TEST(Contamination, SortsByOverlapAndCountsAnNGramOnce) {
  ContaminationCheck check(3);
  check.add_row("part", "one two three four five six seven eight");
  check.add_row("all", "alpha beta gamma");
  check.add_row("same", "Alpha, beta: gamma!");
  for (int i = 0; i < 3; ++i) check.scan("one two three and alpha beta gamma", "d");
  const auto rows = check.contaminated();
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(rows[0].name, "all");
  EXPECT_EQ(rows[1].name, "same");
  EXPECT_EQ(rows[2].name, "part");
  EXPECT_EQ(rows[2].found, 1U);
  EXPECT_NEAR(rows[2].share(), 1.0 / 6, 1e-12);
}

TEST(Contamination, OrderOfWordsMatters) {
  ContaminationCheck check(4);
  check.add_row("row", "north south east west");
  check.scan("west east south north", "d");
  EXPECT_TRUE(check.contaminated().empty());
  check.scan("\xC3\xA9t\xC3\xA9 north south east west", "e");
  EXPECT_EQ(check.contaminated().size(), 1U);
}

}  // namespace
}  // namespace nanochat
