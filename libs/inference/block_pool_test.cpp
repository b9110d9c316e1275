#include "inference/internal/block_pool.h"

#include <gtest/gtest.h>

#include <map>

#include "core/random.h"

namespace nanochat {
namespace {

using Tokens = std::vector<std::int32_t>;

// Takes blocks for `tokens` and publishes those that are full, as a sequence that was computed would.
std::vector<std::int32_t> compute(BlockPool& pool, const Tokens& tokens, std::int64_t block_size) {
  std::vector<std::int32_t> blocks;
  BlockPool::Name name = BlockPool::kRoot;
  for (std::size_t i = 0; i < tokens.size(); i += static_cast<std::size_t>(block_size)) {
    blocks.push_back(pool.allocate());
    if (i + static_cast<std::size_t>(block_size) > tokens.size()) continue;
    name = pool.publish(blocks.back(), name, std::span(tokens).subspan(i, static_cast<std::size_t>(block_size)));
  }
  return blocks;
}

void release(BlockPool& pool, const std::vector<std::int32_t>& blocks) {
  for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) pool.release(*block);
}

TEST(BlockPool, GivesEveryBlockOnceAndTakesThemBack) {
  BlockPool pool(3, 4, true);
  EXPECT_EQ(pool.available(), 3);
  const std::vector<std::int32_t> blocks = {pool.allocate(), pool.allocate(), pool.allocate()};
  EXPECT_EQ(pool.allocate(), BlockPool::kNone);
  EXPECT_EQ(pool.used(), 3);
  pool.hold(blocks[1]);
  release(pool, blocks);
  EXPECT_EQ(pool.used(), 1);
  EXPECT_EQ(pool.holders(blocks[1]), 1);
  pool.release(blocks[1]);
  EXPECT_EQ(pool.available(), 3);
  EXPECT_THROW(pool.release(blocks[1]), std::exception);
  EXPECT_THROW(pool.hold(blocks[1]), std::exception);
}

TEST(BlockPool, FindsTheLongestBeginningThatIsCached) {
  BlockPool pool(8, 2, true);
  release(pool, compute(pool, {1, 2, 3, 4, 5, 6, 7}, 2));
  EXPECT_EQ(pool.cached(), 3);
  EXPECT_EQ(pool.match(Tokens{1, 2, 3, 4, 9, 9}, 9).blocks.size(), 2U);
  EXPECT_EQ(pool.used(), 2);
  EXPECT_EQ(pool.match(Tokens{1, 2, 3, 4, 5, 6}, 1).blocks.size(), 1U);
  EXPECT_EQ(pool.match(Tokens{1}, 9).blocks.size(), 0U);
  EXPECT_EQ(pool.match(Tokens{3, 4, 5, 6}, 9).blocks.size(), 0U);  // the same tokens elsewhere are another block
}

TEST(BlockPool, EqualBlocksHaveOneName) {
  BlockPool pool(4, 2, true);
  const std::int32_t a = pool.allocate(), b = pool.allocate();
  const Tokens tokens = {1, 2};
  EXPECT_EQ(pool.publish(a, BlockPool::kRoot, tokens), pool.publish(b, BlockPool::kRoot, tokens));
  pool.release(a);
  pool.release(b);
  EXPECT_EQ(pool.cached(), 1);
  EXPECT_EQ(pool.available(), 4);
}

TEST(BlockPool, WithoutAPrefixCacheNothingIsKept) {
  BlockPool pool(4, 2, false);
  release(pool, compute(pool, {1, 2, 3, 4}, 2));
  EXPECT_EQ(pool.cached(), 0);
  EXPECT_TRUE(pool.match(Tokens{1, 2, 3, 4}, 9).blocks.empty());
}

TEST(BlockPool, TheLeastRecentlyUsedGoesFirst) {
  BlockPool pool(4, 2, true);
  release(pool, compute(pool, {1, 1, 2, 2}, 2));
  release(pool, compute(pool, {5, 5, 6, 6}, 2));
  const auto used = pool.match(Tokens{1, 1, 2, 2}, 9);
  release(pool, used.blocks);
  pool.allocate();  // the end of the second prompt goes before its beginning
  EXPECT_EQ(pool.match(Tokens{5, 5, 6, 6}, 9).blocks.size(), 1U);
  EXPECT_EQ(pool.match(Tokens{1, 1, 2, 2}, 9).blocks.size(), 2U);
}

TEST(BlockPool, InvalidationTakesWhatFollowsToo) {
  BlockPool pool(8, 2, true);
  release(pool, compute(pool, {1, 1, 2, 2, 3, 3}, 2));
  const auto held = compute(pool, {7, 7, 2, 2}, 2);
  const auto forgotten = pool.invalidate([](std::span<const std::int32_t> tokens) {
    return tokens.size() == 4 && tokens[0] == 1 && tokens[3] == 2;
  });
  EXPECT_EQ(forgotten, 2);
  EXPECT_EQ(pool.match(Tokens{1, 1, 2, 2}, 9).blocks.size(), 1U);
  EXPECT_EQ(pool.invalidate({}), 3);
  EXPECT_EQ(pool.cached(), 0);
  EXPECT_EQ(pool.used(), 3);  // what is held stays: two of the second prompt, one just matched
  release(pool, held);
  EXPECT_TRUE(pool.match(Tokens{7, 7}, 9).blocks.empty());
}

// Random use against a plain count of who holds what.
TEST(BlockPool, ReleasingAPrefixKeepsWhatOthersShare) {
  BlockPool pool(16, 2, true);
  release(pool, compute(pool, {1, 2, 3, 4, 5, 6, 7}, 2));  // three full blocks are cached
  auto prefix = pool.match(Tokens{1, 2}, 9);               // another sequence goes on after the first
  const std::int32_t other = pool.allocate();
  pool.publish(other, prefix.name, Tokens{8, 9});
  pool.release(other);
  release(pool, prefix.blocks);
  EXPECT_EQ(pool.cached(), 4);
  pool.release_prefix(Tokens{1, 2, 3, 4, 5, 6, 7});
  EXPECT_EQ(pool.cached(), 2);  // {1, 2} and {8, 9}
  EXPECT_EQ(pool.match(Tokens{1, 2, 8, 9}, 9).blocks.size(), 2U);
  pool.release_prefix(Tokens{1, 2, 8, 9});  // held since the line above
  EXPECT_EQ(pool.used(), 2);
  release(pool, prefix.blocks = pool.match(Tokens{1, 2, 8, 9}, 9).blocks);
  release(pool, prefix.blocks);
  pool.release_prefix(Tokens{7, 7});
  EXPECT_EQ(pool.cached(), 2);
  pool.release_prefix(Tokens{1, 2, 8, 9, 5});
  EXPECT_EQ(pool.cached(), 0);
  EXPECT_EQ(pool.available(), 16);
}

TEST(BlockPool, NeverLosesOrSharesABlockByMistake) {
  Rng rng(5);
  BlockPool pool(12, 2, true);
  std::vector<std::vector<std::int32_t>> sequences;
  for (int step = 0; step < 5000; ++step) {
    if (!sequences.empty() && rng.below(2) == 0) {
      const auto which = static_cast<std::ptrdiff_t>(rng.below(sequences.size()));
      release(pool, sequences[static_cast<std::size_t>(which)]);
      sequences.erase(sequences.begin() + which);
    } else {
      Tokens tokens(2 * (1 + rng.below(4)));
      for (std::int32_t& token : tokens) token = static_cast<std::int32_t>(rng.below(2));
      auto prefix = pool.match(tokens, 9);
      BlockPool::Name name = prefix.name;
      std::vector<std::int32_t> blocks = prefix.blocks;
      while (2 * blocks.size() < tokens.size()) {
        const std::int32_t block = pool.allocate();
        if (block == BlockPool::kNone) break;
        name = pool.publish(block, name, std::span(tokens).subspan(2 * blocks.size(), 2));
        blocks.push_back(block);
      }
      sequences.push_back(blocks);
    }
    if (rng.below(100) == 0) pool.invalidate([&](std::span<const std::int32_t> tokens) { return tokens.back() == 1; });
    std::map<std::int32_t, std::int64_t> holders;
    for (const auto& blocks : sequences) {
      for (const std::int32_t block : blocks) ++holders[block];
    }
    ASSERT_EQ(pool.used(), static_cast<std::int64_t>(holders.size())) << "step " << step;
    for (const auto& [block, count] : holders) ASSERT_EQ(pool.holders(block), count);
  }
}

}  // namespace
}  // namespace nanochat
