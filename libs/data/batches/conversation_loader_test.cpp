#include "data/batches/conversation_loader.h"

#include <algorithm>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/errors.h"
#include "core/random.h"

namespace nanochat {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr std::int32_t kPad = 9999;

// Conversation i holds the tokens 100 * i + 0, 1, ...; the odd ones are supervised.
std::shared_ptr<RenderedConversations> conversations_of(const std::vector<std::int32_t>& lengths) {
  auto all = std::make_shared<RenderedConversations>();
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    RenderedConversation one;
    for (std::int32_t t = 0; t < lengths[i]; ++t) {
      one.ids.push_back(100 * static_cast<std::int32_t>(i) + t);
      one.mask.push_back(t % 2 == 1 ? 1 : 0);
    }
    all->add(one);
  }
  return all;
}

std::shared_ptr<RenderedConversations> random_conversations(std::size_t count, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<std::int32_t> lengths;
  for (std::size_t i = 0; i < count; ++i) lengths.push_back(static_cast<std::int32_t>(rng.between(2, 40)));
  return conversations_of(lengths);
}

ConversationLoaderOptions options_of(ConversationPacking packing, std::int64_t rows, std::int64_t length, bool loop = false) {
  return {.rows = rows, .sequence_len = length, .packing = packing, .padding_id = kPad, .loop = loop};
}

std::vector<TokenBatch> all_batches(Loader& loader) {
  std::vector<TokenBatch> batches;
  for (TokenBatch batch; loader.next(batch);) batches.push_back(batch);
  return batches;
}

TEST(RenderedConversations, KeepIdsAndMaskInOneNumber) {
  const auto all = conversations_of({3, 2});
  EXPECT_EQ(all->size(), 2U);
  EXPECT_EQ(all->tokens(), 5U);
  EXPECT_EQ(all->supervised_tokens(), 2U);
  EXPECT_THAT((*all)[0], ElementsAre(~0, 1, ~2));
  EXPECT_THAT((*all)[1], ElementsAre(~100, 101));
}

TEST(RenderedConversations, KnowWhatIsExcludedCutAndLearned) {
  RenderedConversations all;
  all.add({.ids = {7, 8, 9}, .mask = {0, 0, 1}, .excluded = {0, 1, 0}, .whole_length = 3});
  all.add({.ids = {1, 2, 3}, .mask = {0, 0, 0}, .excluded = {0, 1, 1}, .whole_length = 4});
  all.add({.ids = {4, 5}, .mask = {1, 0}, .excluded = {0, 0}, .whole_length = 2});
  const auto targets = [&](std::size_t i, ConversationPacking packing) {
    std::vector<std::int32_t> found;
    for (const std::int32_t token : all[i]) found.push_back(RenderedConversations::target_of(token, packing));
    return found;
  };
  EXPECT_THAT(targets(0, ConversationPacking::kStream), ElementsAre(7, -1, 9)) << "a stream learns all but what is excluded";
  EXPECT_THAT(targets(0, ConversationPacking::kPadded), ElementsAre(-1, -1, 9));
  EXPECT_EQ(RenderedConversations::id_of(all[0][1]), 8);
  EXPECT_TRUE(all.has_target(0, ConversationPacking::kBestFit));
  EXPECT_FALSE(all.has_target(1, ConversationPacking::kStream));
  EXPECT_FALSE(all.has_target(2, ConversationPacking::kBestFit)) << "the first token is no target";
  EXPECT_TRUE(all.has_target(2, ConversationPacking::kStream));
  EXPECT_FALSE(all.is_cut(0));
  EXPECT_TRUE(all.is_cut(1));

  const RenderedConversations some = all.select({2, 1});
  EXPECT_EQ(some.size(), 2U);
  EXPECT_EQ(some.tokens(), 5U);
  EXPECT_EQ(some.supervised_tokens(), 1U);
  EXPECT_TRUE(some.is_cut(1));
  EXPECT_EQ(RenderedConversations::id_of(some[1][2]), 3);
  RenderedConversations joined;
  joined.append(some);
  EXPECT_THAT(joined[1], ::testing::ElementsAreArray(all[1]));
  EXPECT_TRUE(joined.is_cut(1));
  EXPECT_EQ(joined.tokens(), 5U);
}

TEST(ConversationLoader, AStreamTakesNoTargetFromAMessageThatIsNotLearned) {
  auto all = std::make_shared<RenderedConversations>();
  all->add({.ids = {1, 2, 3, 4, 5, 6, 7}, .mask = {0, 0, 0, 1, 0, 0, 1}, .excluded = {0, 0, 0, 0, 1, 1, 0}, .whole_length = 7});
  ConversationLoaderOptions options = options_of(ConversationPacking::kStream, 2, 3);
  options.shuffle = false;
  const auto loader = make_conversation_loader(all, options, nullptr);
  TokenBatch batch;
  ASSERT_TRUE(loader->next(batch));
  EXPECT_THAT(batch.inputs, ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_THAT(batch.targets, ElementsAre(2, 3, 4, -1, -1, 7));
}

TEST(ConversationLoader, BestFitPutsWholeConversationsIntoRowsAndMasksThem) {
  ConversationLoaderOptions options = options_of(ConversationPacking::kBestFit, 2, 6);
  options.shuffle = false;
  // Positions 5, 2, 4, 1: the longest first, each in the fullest row with room.
  const auto loader = make_conversation_loader(conversations_of({6, 3, 5, 2}), options, nullptr);
  TokenBatch batch;
  ASSERT_TRUE(loader->next(batch));
  EXPECT_THAT(batch.inputs, ElementsAre(0, 1, 2, 3, 4, 300, 200, 201, 202, 203, 100, 101));
  EXPECT_THAT(batch.targets, ElementsAre(1, -1, 3, -1, 5, 301, 201, -1, 203, -1, 101, -1));
  EXPECT_THAT(batch.documents, ElementsAre(0, 5, 6, 10, 12));
  EXPECT_FALSE(loader->next(batch));
}

TEST(ConversationLoader, BestFitHoldsEveryConversationOnceAnEpochAndFillsItsRows) {
  constexpr std::int64_t kLength = 64;
  const auto all = random_conversations(500, 3);
  const ConversationLoaderOptions options = options_of(ConversationPacking::kBestFit, 4, kLength);
  const auto loader = make_conversation_loader(all, options, nullptr);
  std::map<std::int32_t, int> seen;  // first token of each conversation
  std::size_t supervised = 0, positions = 0, padding = 0;
  std::int64_t rows = 0;
  for (const TokenBatch& batch : all_batches(*loader)) {
    ASSERT_EQ(batch.documents.back(), 4 * kLength);
    for (std::size_t d = 0; d + 1 < batch.documents.size(); ++d) {
      const auto begin = static_cast<std::size_t>(batch.documents[d]), end = static_cast<std::size_t>(batch.documents[d + 1]);
      ASSERT_EQ(begin / kLength, (end - 1) / kLength) << "crosses rows";
      if (batch.inputs[begin] == kPad) continue;
      ++seen[batch.inputs[begin]];
      for (std::size_t i = begin; i + 1 < end; ++i) ASSERT_EQ(batch.inputs[i + 1], batch.inputs[i] + 1);
    }
    supervised += static_cast<std::size_t>(std::count_if(batch.targets.begin(), batch.targets.end(),
                                                         [](auto t) { return t >= 0; }));
    padding += static_cast<std::size_t>(std::count(batch.inputs.begin(), batch.inputs.end(), kPad));
    positions += batch.inputs.size();
    for (std::int64_t row = 0; row < 4; ++row) rows += batch.inputs[static_cast<std::size_t>(row * kLength)] != kPad ? 1 : 0;
  }
  EXPECT_EQ(seen.size(), 500U);
  EXPECT_TRUE(std::all_of(seen.begin(), seen.end(), [](const auto& entry) { return entry.second == 1; }));
  EXPECT_EQ(supervised, all->supervised_tokens());
  EXPECT_LT(static_cast<double>(padding), 0.03 * static_cast<double>(positions));
  EXPECT_EQ(rows_of_epoch(*all, options), rows);
}

TEST(ConversationLoader, AConversationLongerThanARowIsCut) {
  ConversationLoaderOptions options = options_of(ConversationPacking::kBestFit, 1, 4);
  const auto loader = make_conversation_loader(conversations_of({50}), options, nullptr);
  TokenBatch batch;
  ASSERT_TRUE(loader->next(batch));
  EXPECT_THAT(batch.inputs, ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(batch.targets, ElementsAre(1, -1, 3, -1));
  EXPECT_THAT(batch.documents, ElementsAre(0, 4));
  EXPECT_FALSE(loader->next(batch));
}

TEST(ConversationLoader, PaddedRowsAreAsLongAsTheLongestOfTheBatch) {
  ConversationLoaderOptions options = options_of(ConversationPacking::kPadded, 2, 100);
  options.shuffle = false;
  const auto loader = make_conversation_loader(conversations_of({3, 5, 2}), options, nullptr);
  TokenBatch batch;
  ASSERT_TRUE(loader->next(batch));
  EXPECT_EQ(batch.sequence_len, 4);
  EXPECT_THAT(batch.inputs, ElementsAre(0, 1, kPad, kPad, 100, 101, 102, 103));
  EXPECT_THAT(batch.targets, ElementsAre(1, -1, -1, -1, 101, -1, 103, -1));
  EXPECT_TRUE(batch.documents.empty());
  ASSERT_TRUE(loader->next(batch)) << "the last batch is filled up";
  EXPECT_THAT(batch.inputs, ElementsAre(200, kPad));
  EXPECT_THAT(batch.targets, ElementsAre(201, -1));
  EXPECT_FALSE(loader->next(batch));
}

TEST(ConversationLoader, AStreamIsEveryTokenInOrderAllOfThemTargets) {
  ConversationLoaderOptions options = options_of(ConversationPacking::kStream, 2, 3);
  options.shuffle = false;
  const auto loader = make_conversation_loader(conversations_of({4, 5, 6}), options, nullptr);
  TokenBatch batch;
  ASSERT_TRUE(loader->next(batch));
  EXPECT_THAT(batch.inputs, ElementsAre(0, 1, 2, 3, 100, 101));
  EXPECT_THAT(batch.targets, ElementsAre(1, 2, 3, 100, 101, 102));
  EXPECT_TRUE(batch.documents.empty());
  ASSERT_TRUE(loader->next(batch));
  EXPECT_EQ(batch.inputs.front(), 103);
  EXPECT_FALSE(loader->next(batch)) << "one token is less than a batch";
}

TEST(ConversationLoader, BestFitPadChoosesFromABufferAndPadsTheRest) {
  ConversationLoaderOptions options = options_of(ConversationPacking::kBestFitPad, 2, 6);
  options.shuffle = false;
  options.buffer_conversations = 3;
  // Of 3, 4 and 5 tokens the longest is first; then none fits the room of 2. Then 4 and 3 fill a row; 9 are cut to 7.
  const auto loader = make_conversation_loader(conversations_of({3, 4, 5, 3, 9}), options, nullptr);
  TokenBatch batch;
  ASSERT_TRUE(loader->next(batch));
  EXPECT_THAT(batch.inputs, ElementsAre(200, 201, 202, 203, 204, kPad, 100, 101, 102, 103, 0, 1));
  EXPECT_THAT(batch.targets, ElementsAre(201, -1, 203, -1, -1, -1, 101, -1, 103, -1, 1, -1));
  EXPECT_TRUE(batch.documents.empty()) << "attention crosses conversations";
  EXPECT_EQ(rows_of_epoch(*conversations_of({3, 4, 5, 3, 9}), options), 4);
  ASSERT_TRUE(loader->next(batch));
  EXPECT_THAT(batch.inputs, ElementsAre(400, 401, 402, 403, 404, 405, 300, 301, 302, kPad, kPad, kPad));
  EXPECT_THAT(batch.targets, ElementsAre(401, -1, 403, -1, 405, -1, 301, -1, -1, -1, -1, -1));
  EXPECT_FALSE(loader->next(batch));
}

TEST(ConversationLoader, BestFitPadRefusesABufferOfOtherData) {
  const ConversationLoaderOptions options = options_of(ConversationPacking::kBestFitPad, 2, 32, true);
  const auto all = random_conversations(60, 5);
  const auto loader = make_conversation_loader(all, options, nullptr);
  TokenBatch batch;
  loader->next(batch);
  for (const char* waiting : {"5", "[60]", "[-1]", "[0.5]", "{}"}) {
    nlohmann::json bad = loader->position();
    bad["waiting"] = nlohmann::json::parse(waiting);
    EXPECT_THAT([&] { make_conversation_loader(all, options, bad); }, ThrowsMessage<DataError>(HasSubstr("numbers below 60")))
        << waiting;
  }
  nlohmann::json bad = loader->position();
  bad.erase("waiting");
  EXPECT_THAT([&] { make_conversation_loader(all, options, bad); }, ThrowsMessage<DataError>(HasSubstr("is missing")));
}

class Packings : public ::testing::TestWithParam<ConversationPacking> {};

TEST_P(Packings, ALoaderContinuesWhereAnotherStood) {
  const auto all = random_conversations(60, 5);
  const ConversationLoaderOptions options = options_of(GetParam(), 3, 32, /*loop=*/true);
  const auto whole = make_conversation_loader(all, options, nullptr);
  TokenBatch expected, found;
  std::int64_t epochs = 0;
  for (int i = 0; i < 100; ++i) {
    const auto resumed = make_conversation_loader(all, options, nlohmann::json::parse(whole->position().dump()));
    ASSERT_TRUE(whole->next(expected));
    ASSERT_TRUE(resumed->next(found));
    ASSERT_EQ(expected.inputs, found.inputs) << i;
    ASSERT_EQ(expected.targets, found.targets) << i;
    ASSERT_EQ(expected.documents, found.documents) << i;
    ASSERT_EQ(whole->position(), resumed->position());
    epochs = whole->epoch();
  }
  EXPECT_GT(epochs, 1);
}

TEST_P(Packings, RanksShareOneOrder) {
  const auto conversations = random_conversations(60, 4);
  ConversationLoaderOptions options = options_of(GetParam(), 3, 40, true);
  const auto whole = make_conversation_loader(conversations, options, nullptr);
  nlohmann::json position;
  for (const int world_size : {2, 3, 1, 4}) {
    constexpr int kBatches = 24;  // more than an epoch
    std::vector<TokenBatch> expected(kBatches);
    for (TokenBatch& batch : expected) ASSERT_TRUE(whole->next(batch));
    options.world_size = world_size;
    nlohmann::json after;
    for (options.rank = 0; options.rank < world_size; ++options.rank) {
      const auto loader = make_conversation_loader(conversations, options, position);
      for (int i = options.rank; i < kBatches; i += world_size) {
        TokenBatch batch;
        ASSERT_TRUE(loader->next(batch));
        EXPECT_EQ(batch.inputs, expected[static_cast<std::size_t>(i)].inputs)
            << "rank " << options.rank << " of " << world_size;
        EXPECT_EQ(batch.targets, expected[static_cast<std::size_t>(i)].targets);
        EXPECT_EQ(batch.documents, expected[static_cast<std::size_t>(i)].documents);
      }
      if (options.rank == 0) after = loader->position();
      EXPECT_EQ(loader->position(), after);
    }
    EXPECT_EQ(after, whole->position());
    position = after;
  }
}

TEST_P(Packings, RanksEndTogetherOrOneBatchEarlier) {
  const auto conversations = random_conversations(60, 4);
  ConversationLoaderOptions options = options_of(GetParam(), 3, 40);
  const std::size_t whole = all_batches(*make_conversation_loader(conversations, options, nullptr)).size();
  options.world_size = 4;
  for (options.rank = 0; options.rank < 4; ++options.rank) {
    EXPECT_EQ(all_batches(*make_conversation_loader(conversations, options, nullptr)).size(),
              (whole + 3 - static_cast<std::size_t>(options.rank)) / 4);
  }
}

TEST_P(Packings, TheSeedFixesTheOrderAndEpochsDiffer) {
  const auto all = random_conversations(60, 5);
  ConversationLoaderOptions options = options_of(GetParam(), 2, 32, true);
  TokenBatch one, other, third;
  make_conversation_loader(all, options, nullptr)->next(one);
  make_conversation_loader(all, options, nullptr)->next(other);
  EXPECT_EQ(one.inputs, other.inputs);
  options.seed = 7;
  make_conversation_loader(all, options, nullptr)->next(third);
  EXPECT_NE(one.inputs, third.inputs);
}

INSTANTIATE_TEST_SUITE_P(All, Packings,
                         ::testing::Values(ConversationPacking::kStream, ConversationPacking::kBestFit,
                                           ConversationPacking::kPadded, ConversationPacking::kBestFitPad));

TEST(ConversationLoader, RefusesAPositionOfOtherDataAndNoData) {
  const ConversationLoaderOptions options = options_of(ConversationPacking::kBestFit, 2, 32, true);
  const auto position = make_conversation_loader(random_conversations(60, 5), options, nullptr)->position();
  EXPECT_THAT([&] { make_conversation_loader(random_conversations(61, 5), options, position); },
              ThrowsMessage<DataError>(HasSubstr("\"conversations\" is 60 where this loader's is 61")));
  EXPECT_THAT([&] { make_conversation_loader(conversations_of({}), options, nullptr); },
              ThrowsMessage<DataError>(HasSubstr("no conversation")));
  EXPECT_THAT([&] { make_conversation_loader(conversations_of({1, 1}), options, nullptr); }, ::testing::Throws<DataError>());
  EXPECT_THROW(make_conversation_loader(conversations_of({5}), options_of(ConversationPacking::kStream, 0, 1), nullptr),
               ConfigError);
}

}  // namespace
}  // namespace nanochat
