#include "data/batches/packing.h"

#include <algorithm>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "core/random.h"

namespace nanochat {
namespace {

using ::testing::ElementsAre;
using Tokens = std::vector<std::int32_t>;

constexpr std::int32_t kBos = -7;

DocumentWindow window_of(const std::vector<Tokens>& documents) {
  DocumentWindow window;
  for (const Tokens& document : documents) window.add(document);
  return window;
}

struct Row {
  Tokens inputs, targets;
};

std::vector<Row> rows_of(const PackedWindow& packed, std::size_t sequence_len) {
  std::vector<Row> rows;
  for (std::size_t i = 0; i < packed.rows(); ++i) {
    Row row{Tokens(sequence_len, 99), Tokens(sequence_len, 99)};
    packed.copy_row(i, row.inputs.data(), row.targets.data());
    rows.push_back(row);
  }
  return rows;
}

TEST(Packing, PlacesTheLongestThatFits) {
  const PackedWindow packed(window_of({{1}, {2, 2}, {3, 3, 3}, {4, 4, 4, 4}}), 7, kBos);
  const auto rows = rows_of(packed, 7);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_THAT(rows[0].inputs, ElementsAre(kBos, 4, 4, 4, 4, kBos, 2));
  EXPECT_THAT(rows[0].targets, ElementsAre(4, 4, 4, 4, kBos, 2, 2));
  EXPECT_THAT(rows[1].inputs, ElementsAre(kBos, 3, 3, 3, kBos, 1, kBos));
  EXPECT_THAT(rows[1].targets, ElementsAre(3, 3, 3, kBos, 1, kBos, -1));
}

TEST(Packing, CutsTheLongestWhenNoneFits) {
  const PackedWindow packed(window_of({{1, 2, 3, 4, 5, 6, 7, 8, 9}, {21, 22}}), 4, kBos);
  const auto rows = rows_of(packed, 4);
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_THAT(rows[0].inputs, ElementsAre(kBos, 21, 22, kBos));
  EXPECT_THAT(rows[0].targets, ElementsAre(21, 22, kBos, 1));
  EXPECT_THAT(rows[1].inputs, ElementsAre(kBos, 2, 3, 4));
  EXPECT_THAT(rows[1].targets, ElementsAre(2, 3, 4, 5));
  EXPECT_THAT(rows[2].inputs, ElementsAre(kBos, 6, 7, 8));
  EXPECT_THAT(rows[2].targets, ElementsAre(6, 7, 8, 9));
}

TEST(Packing, PadsOnlyTheLastRow) {
  const PackedWindow packed(window_of({{1}}), 5, kBos);
  const auto rows = rows_of(packed, 5);
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_THAT(rows[0].inputs, ElementsAre(kBos, 1, kBos, kBos, kBos));
  EXPECT_THAT(rows[0].targets, ElementsAre(1, kBos, -1, -1, -1));
}

TEST(Packing, TakesDocumentsWithoutTokens) {
  const PackedWindow packed(window_of({{}, {5}, {}}), 3, kBos);
  const auto rows = rows_of(packed, 3);
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_THAT(rows[0].inputs, ElementsAre(kBos, 5, kBos));
  EXPECT_THAT(rows[0].targets, ElementsAre(5, kBos, kBos));
  EXPECT_EQ(PackedWindow(DocumentWindow{}, 3, kBos).rows(), 0u);
}

// Every token of every document is a target exactly once, every row begins with BOS, inputs and targets agree, and no
// row but one has padding.
TEST(Packing, UsesEveryTokenOnce) {
  EXPECT_TRUE(rc::check("any documents, any row length", [] {
    const auto lengths = *rc::gen::nonEmpty(rc::gen::container<std::vector<int>>(rc::gen::inRange(0, 40)));
    const auto sequence_len = *rc::gen::inRange<std::size_t>(1, 24);
    std::vector<Tokens> documents;
    std::int32_t next = 0;
    for (const int length : lengths) {
      documents.emplace_back();
      for (int i = 0; i < length; ++i) documents.back().push_back(next++);
    }
    PackedWindow packed(window_of(documents), static_cast<std::int64_t>(sequence_len), kBos);
    Rng rng(*rc::gen::arbitrary<std::uint64_t>());
    packed.shuffle(rng);
    Tokens seen;
    std::size_t padded = 0;
    for (const Row& row : rows_of(packed, sequence_len)) {
      RC_ASSERT(row.inputs[0] == kBos);
      for (std::size_t i = 0; i < sequence_len; ++i) {
        if (row.targets[i] >= 0) seen.push_back(row.targets[i]);
        // A token follows the one before it in its document, or BOS.
        if (row.targets[i] >= 0 && row.inputs[i] != kBos) RC_ASSERT(row.targets[i] == row.inputs[i] + 1);
        if (i + 1 < sequence_len && row.targets[i] != -1) RC_ASSERT(row.inputs[i + 1] == row.targets[i]);
        if (i + 1 < sequence_len && row.targets[i] == -1) RC_ASSERT(row.targets[i + 1] == -1);
      }
      padded += row.targets.back() == -1 ? 1u : 0u;
    }
    std::sort(seen.begin(), seen.end());
    Tokens all(static_cast<std::size_t>(next));
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int32_t>(i);
    RC_ASSERT(seen == all);
    RC_ASSERT(padded <= 1u);
  }));
}

TEST(Packing, KeepsDocumentsThatFitWholeWhileLongOnesFillTheGaps) {
  std::vector<Tokens> documents(40, Tokens(100, 1));
  documents.resize(60, Tokens(5000, 2));
  const auto rows = rows_of(PackedWindow(window_of(documents), 256, kBos), 256);
  std::size_t runs = 0;
  for (const Row& row : rows) {
    for (std::size_t i = 0; i < 256; ++i) runs += row.inputs[i] == kBos && row.targets[i] == 1 ? 1u : 0u;
  }
  EXPECT_EQ(runs, 40u);
}

TEST(Packing, ChoosesFromABufferTheFirstAmongEquals) {
  const std::vector<std::size_t> lengths = {5, 3, 8, 5, 3};
  EXPECT_EQ(longest_that_fits(lengths, 100), 2u);
  EXPECT_EQ(longest_that_fits(lengths, 8), 2u);
  EXPECT_EQ(longest_that_fits(lengths, 7), 0u);
  EXPECT_EQ(longest_that_fits(lengths, 4), 1u);
  EXPECT_EQ(longest_that_fits(lengths, 2), 5u);
  EXPECT_EQ(shortest_of(lengths), 1u);
}

TEST(DocumentWindow, IsFullByDocumentsOrTokens) {
  DocumentWindow by_documents;
  for (std::uint64_t i = 0; i < kWindowDocuments; ++i) {
    EXPECT_FALSE(by_documents.full());
    by_documents.add({});
  }
  EXPECT_TRUE(by_documents.full());
  DocumentWindow by_tokens;
  by_tokens.add(Tokens(kWindowTokens - 1, 1));
  EXPECT_FALSE(by_tokens.full());
  by_tokens.add(Tokens(1, 1));
  EXPECT_TRUE(by_tokens.full());
}

}  // namespace
}  // namespace nanochat
