#include "tokenizer/merge_table.h"

#include <map>

#include <gmock/gmock.h>
#include <rapidcheck/gtest.h>

#include "core/random.h"
#include "tokenizer/internal/derive_merges.h"
#include "tokenizer/testing_tokenizers.h"
#include "tokenizer/token_strings.h"

namespace nanochat {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// The definition: the lowest rank first, leftmost among equals.
std::vector<TokenId> merge_naively(std::vector<TokenId> symbols, const std::vector<Merge>& merges) {
  std::map<std::pair<TokenId, TokenId>, Merge> table;
  for (const Merge& merge : merges) table.emplace(std::pair(merge.left, merge.right), merge);
  while (true) {
    std::size_t best = symbols.size();
    std::uint32_t best_rank = MergeTable::kNoRank;
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto found = table.find({symbols[i], symbols[i + 1]});
      if (found != table.end() && found->second.rank < best_rank) {
        best = i;
        best_rank = found->second.rank;
      }
    }
    if (best == symbols.size()) return symbols;
    symbols[best] = table.at({symbols[best], symbols[best + 1]}).result;
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

MergeTable table_of(const std::vector<Merge>& merges) {
  MergeTable table;  // grows as it is filled
  for (const Merge& merge : merges) table.add(merge);
  return table;
}

std::vector<TokenId> merged(const MergeTable& table, const std::vector<TokenId>& symbols) {
  std::vector<TokenId> ids;
  table.merge(symbols, ids);
  return ids;
}

// A vocabulary over `letters` symbols whose merges come in no particular order, ranks shared now and then.
std::vector<Merge> random_merges(Rng& rng, TokenId letters, int count) {
  std::vector<Merge> merges;
  TokenId next = letters;
  for (int i = 0; i < count; ++i, ++next) {
    merges.push_back({static_cast<TokenId>(rng.below(static_cast<std::uint64_t>(next))),
                      static_cast<TokenId>(rng.below(static_cast<std::uint64_t>(next))), next,
                      static_cast<std::uint32_t>(rng.below(static_cast<std::uint64_t>(count)))});
  }
  return merges;
}

TEST(MergeTable, FindsWhatWasAddedFirst) {
  const MergeTable table = table_of({{1, 2, 10, 0}, {2, 1, 11, 1}, {1, 2, 12, 2}});
  EXPECT_EQ(table.size(), 2U);
  EXPECT_EQ(table.find(1, 2).result, 10);
  EXPECT_EQ(table.find(2, 1).rank, 1U);
  EXPECT_EQ(table.find(2, 2).rank, MergeTable::kNoRank);
}

TEST(MergeTable, MergesLowestRankFirstThenLeftmost) {
  const MergeTable table = table_of({{0, 0, 1, 0}, {1, 0, 2, 1}});
  EXPECT_THAT(merged(table, {}), IsEmpty());
  EXPECT_THAT(merged(table, {0}), ElementsAre(0));
  EXPECT_THAT(merged(table, {0, 0, 0}), ElementsAre(2));
  EXPECT_THAT(merged(table, {0, 0, 0, 0}), ElementsAre(1, 1));
  EXPECT_THAT(merged(table, {0, 0, 0, 0, 0}), ElementsAre(1, 2));
}

TEST(MergeTable, AppendsToWhatIsThere) {
  std::vector<TokenId> ids = {7};
  const std::vector<TokenId> symbols = {0, 0};
  table_of({{0, 0, 1, 0}}).merge(symbols, ids);
  EXPECT_THAT(ids, ElementsAre(7, 1));
}

RC_GTEST_PROP(MergeTable, EqualsTheDefinitionForShortAndLongPieces, ()) {
  Rng rng(*rc::gen::arbitrary<std::uint64_t>());
  const auto letters = static_cast<TokenId>(1 + rng.below(4));
  const std::vector<Merge> merges = random_merges(rng, letters, static_cast<int>(1 + rng.below(30)));
  std::vector<TokenId> symbols(rng.below(2) == 0 ? rng.below(101) : 101 + rng.below(200));
  for (TokenId& symbol : symbols) symbol = static_cast<TokenId>(rng.below(static_cast<std::uint64_t>(letters)));
  RC_ASSERT(merged(table_of(merges), symbols) == merge_naively(symbols, merges));
}

MergedToken token_of(TokenId id, const std::string& bytes) {
  MergedToken token{id, bytes, {}, std::vector<std::size_t>(bytes.size(), 1)};
  for (const char byte : bytes) token.symbols.push_back(byte - 'a');
  return token;
}

TEST(DeriveMerges, FindsTheOnePairOfATrainedToken) {
  const auto merges = derive_merges({token_of(26, "ab"), token_of(27, "abc"), token_of(28, "abab")});
  ASSERT_EQ(merges.size(), 3U);
  EXPECT_EQ(merges[1].left, 26);
  EXPECT_EQ(merges[1].right, 2);
  EXPECT_EQ(merges[2].left, 26);
  EXPECT_EQ(merges[2].right, 26);
  EXPECT_EQ(merges[2].result, 28);
  EXPECT_EQ(merges[2].rank, 2U);
}

TEST(DeriveMerges, TakesEverySplitWhenATokenHasNoPair) {
  // "abcd" comes before any of its parts but "cd": three symbols remain, so no one pair makes it.
  const auto merges = derive_merges({token_of(26, "cd"), token_of(27, "abcd"), token_of(28, "ab"), token_of(29, "bcd")});
  std::vector<std::array<TokenId, 3>> found;
  for (const Merge& merge : merges) found.push_back({merge.left, merge.right, static_cast<TokenId>(merge.rank)});
  using Row = std::array<TokenId, 3>;
  EXPECT_THAT(found, ElementsAre(Row{2, 3, 0}, Row{0, 29, 1}, Row{28, 26, 1}, Row{0, 1, 2}, Row{1, 26, 3}));
}

TEST(TokenStrings, FindsBytesThatMayBeFound) {
  const std::vector<std::string> tokens = {"a", "long enough for two words", "hidden", "a"};
  const TokenStrings strings(tokens, [](TokenId id) { return id != 2; });
  EXPECT_EQ(strings.size(), 4U);
  EXPECT_EQ(strings[2], "hidden");
  EXPECT_EQ(strings.find("a"), 0);
  EXPECT_EQ(strings.find("long enough for two words"), 1);
  EXPECT_EQ(strings.find("hidden"), -1);
  EXPECT_EQ(strings.find("long enough for two wordS"), -1);
  EXPECT_EQ(strings.find(""), -1);
  EXPECT_EQ(TokenStrings().find("a"), -1);
}

}  // namespace
}  // namespace nanochat
