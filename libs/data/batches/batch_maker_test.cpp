#include "data/batches/batch_maker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/errors.h"

namespace nanochat {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using Tokens = std::vector<std::int32_t>;

constexpr std::int32_t kBos = 100;

class ListSource : public TokenSource {
 public:
  explicit ListSource(std::vector<Tokens> documents) : documents_(std::move(documents)) {}
  void seek(std::int64_t, std::uint64_t document) override { next_ = document; }
  bool next(Tokens& tokens, const std::stop_token& stop) override {
    if (next_ >= documents_.size() || stop.stop_requested()) return false;
    tokens = documents_[next_++];
    return true;
  }

 private:
  std::vector<Tokens> documents_;
  std::uint64_t next_ = 0;
};

LoaderOptions options_of(Packing packing, std::int64_t rows, std::int64_t sequence_len, bool loop) {
  LoaderOptions options;
  options.packing = packing;
  options.rows = rows;
  options.sequence_len = sequence_len;
  options.loop = loop;
  options.shuffle = false;
  return options;
}

std::unique_ptr<BatchMaker> maker_of(const std::vector<Tokens>& documents, const LoaderOptions& options,
                                     const LoaderPosition& position = {}) {
  return make_batch_maker(std::make_unique<ListSource>(documents), kBos, options, position);
}

// What the reference does, word for word: all documents in one queue, B*T+1 tokens popped for a batch.
std::vector<TokenBatch> reference_batches(const std::vector<Tokens>& documents, std::int64_t rows, std::int64_t sequence_len,
                                          std::size_t count) {
  std::vector<TokenBatch> batches;
  Tokens buffer;
  const auto needed = static_cast<std::ptrdiff_t>(rows * sequence_len + 1);
  for (std::size_t document = 0; batches.size() < count;) {
    while (static_cast<std::ptrdiff_t>(buffer.size()) < needed) {
      buffer.push_back(kBos);
      const Tokens& tokens = documents[document++ % documents.size()];
      buffer.insert(buffer.end(), tokens.begin(), tokens.end());
    }
    const Tokens scratch(buffer.begin(), buffer.begin() + needed);
    buffer.erase(buffer.begin(), buffer.begin() + needed);
    batches.push_back(
        {rows, sequence_len, Tokens(scratch.begin(), scratch.end() - 1), Tokens(scratch.begin() + 1, scratch.end()), {}});
  }
  return batches;
}

const std::vector<Tokens> kDocuments = {{1, 2, 3, 4, 5}, {}, {6}, {7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17}, {18, 19}};

TEST(StreamBatches, EqualTheReference) {
  for (const auto& [rows, sequence_len] : {std::pair{1, 1}, {1, 4}, {2, 3}, {3, 8}, {1, 100}}) {
    const LoaderOptions options = options_of(Packing::kStream, rows, sequence_len, true);
    const auto maker = maker_of(kDocuments, options);
    for (const TokenBatch& expected : reference_batches(kDocuments, rows, sequence_len, 12)) {
      TokenBatch batch;
      ASSERT_TRUE(maker->make(batch, {}));
      EXPECT_EQ(batch.inputs, expected.inputs);
      EXPECT_EQ(batch.targets, expected.targets);
      EXPECT_EQ(batch.rows, rows);
      EXPECT_EQ(batch.sequence_len, sequence_len);
    }
  }
}

TEST(StreamBatches, DropTheLastPartialBatchWhenNotLooping) {
  const LoaderOptions options = options_of(Packing::kStream, 1, 6, false);  // 24 tokens are 3 times 7, and 3 more
  const auto maker = maker_of(kDocuments, options);
  TokenBatch batch;
  int count = 0;
  while (maker->make(batch, {})) ++count;
  EXPECT_EQ(count, 3);
}

class AllPackings : public ::testing::TestWithParam<Packing> {};

TEST_P(AllPackings, ContinueAtEveryPosition) {
  for (const bool shuffle : {false, true}) {
    LoaderOptions options = options_of(GetParam(), 2, 3, true);
    options.shuffle = shuffle;
    options.buffer_documents = 12;  // more than an epoch has
    options.refill_documents = 4;
    const auto whole = maker_of(kDocuments, options);
    std::vector<TokenBatch> batches(12);
    std::vector<nlohmann::json> positions = {to_json({}, options)};
    for (TokenBatch& batch : batches) {
      ASSERT_TRUE(whole->make(batch, {}));
      positions.push_back(to_json(whole->position(), options));
    }
    EXPECT_GT(whole->position().epoch, 1);
    for (std::size_t start = 0; start < batches.size(); ++start) {
      const auto resumed = maker_of(kDocuments, options, parse_position(positions[start], options));
      for (std::size_t i = start; i < batches.size(); ++i) {
        TokenBatch batch;
        ASSERT_TRUE(resumed->make(batch, {}));
        EXPECT_EQ(batch.inputs, batches[i].inputs) << "from " << start << " at " << i;
        EXPECT_EQ(batch.targets, batches[i].targets);
        EXPECT_EQ(to_json(resumed->position(), options), positions[i + 1]);
      }
    }
  }
}

TEST_P(AllPackings, StopAndEnd) {
  LoaderOptions options = options_of(GetParam(), 1, 4, true);
  std::stop_source stop;
  stop.request_stop();
  TokenBatch batch;
  EXPECT_FALSE(maker_of(kDocuments, options)->make(batch, stop.get_token()));
  EXPECT_THAT([&] { maker_of({}, options)->make(batch, {}); }, ThrowsMessage<DataError>(HasSubstr("no document")));
  options.loop = false;
  EXPECT_THROW(maker_of({}, options)->make(batch, {}), DataError);
  const auto maker = maker_of(kDocuments, options);
  while (maker->make(batch, {})) {
  }
  EXPECT_EQ(maker->position().epoch, 0);
  EXPECT_FALSE(maker->make(batch, {}));
}

TEST_P(AllPackings, RefusePositionsOfOtherText) {
  const LoaderOptions options = options_of(GetParam(), 1, 4, true);
  LoaderPosition position;
  position.offset = 1000;
  if (GetParam() == Packing::kBestFitCrop) {
    position.waiting = {{0, 1}, {0, 1000}};
    position.epoch = 1;
  }
  TokenBatch batch;
  const std::string what = GetParam() == Packing::kStream    ? "token 1000 of document 0, is beyond its "
                           : GetParam() == Packing::kBestFit ? "row 1000 from document 0, is beyond the "
                                                             : "document 1000, is beyond the end";
  EXPECT_THAT([&] { maker_of(kDocuments, options, position)->make(batch, {}); }, ThrowsMessage<DataError>(HasSubstr(what)));
}

INSTANTIATE_TEST_SUITE_P(Packings, AllPackings, ::testing::Values(Packing::kStream, Packing::kBestFit, Packing::kBestFitCrop));

TEST(CropBatches, FillEachRowWithTheLongestThatFitsAndCropTheShortest) {
  LoaderOptions options = options_of(Packing::kBestFitCrop, 1, 7, false);
  options.buffer_documents = 3;
  options.refill_documents = 2;
  const auto maker = maker_of({{1, 1, 1}, {2, 2, 2, 2, 2, 2, 2, 2}, {3}, {4, 4, 4, 4, 4}, {5, 5, 5, 5}}, options);
  TokenBatch batch;
  // Document 1 of the four that wait is the longest that fits 8 tokens once 2 is too long: 4, then 3, which fits the rest.
  ASSERT_TRUE(maker->make(batch, {}));
  EXPECT_THAT(batch.inputs, ElementsAre(kBos, 4, 4, 4, 4, 4, kBos));
  EXPECT_THAT(batch.targets, ElementsAre(4, 4, 4, 4, 4, kBos, 3));
  // 5 takes five places; of 1 and 2, neither fits three, and 1 is the shorter one.
  ASSERT_TRUE(maker->make(batch, {}));
  EXPECT_THAT(batch.inputs, ElementsAre(kBos, 5, 5, 5, 5, kBos, 1));
  EXPECT_THAT(batch.targets, ElementsAre(5, 5, 5, 5, kBos, 1, 1));
  ASSERT_TRUE(maker->make(batch, {}));
  EXPECT_THAT(batch.inputs, ElementsAre(kBos, 2, 2, 2, 2, 2, 2));
  EXPECT_FALSE(maker->make(batch, {}));
}

TEST(BestFitBatches, CrossEpochsWithinABatch) {
  const auto maker = maker_of({{1, 2, 3}, {4}}, options_of(Packing::kBestFit, 3, 3, true));
  TokenBatch batch;
  ASSERT_TRUE(maker->make(batch, {}));
  EXPECT_THAT(batch.inputs, ElementsAre(kBos, 1, 2, kBos, 4, kBos, kBos, 1, 2));
  EXPECT_THAT(batch.targets, ElementsAre(1, 2, 3, 4, kBos, -1, 1, 2, 3));
  EXPECT_EQ(maker->position().epoch, 1);
  EXPECT_EQ(maker->position().last_epoch, 1);
  EXPECT_EQ(maker->position().offset, 1u);
}

TEST(LoaderPosition, JsonRoundTrips) {
  const LoaderPosition position{3, 17, 5, 2, {{1, 2}, {1, 4}, {3, 0}, {3, 16}}};
  for (const Packing packing : {Packing::kStream, Packing::kBestFit, Packing::kBestFitCrop}) {
    const LoaderOptions options = options_of(packing, 2, 8, true);
    const LoaderPosition parsed = parse_position(nlohmann::json::parse(to_json(position, options).dump()), options);
    const bool crop = packing == Packing::kBestFitCrop;
    EXPECT_EQ(parsed.epoch, 3);
    EXPECT_EQ(parsed.document, 17u);
    EXPECT_EQ(parsed.offset, crop ? 0u : 5u);
    EXPECT_EQ(parsed.last_epoch, 2);
    EXPECT_EQ(parsed.waiting, crop ? position.waiting : LoaderPosition().waiting);
  }
}

TEST(LoaderPosition, DropsTheBufferWhereTheOrderIsAnother) {
  LoaderOptions options = options_of(Packing::kBestFitCrop, 2, 8, true);
  const nlohmann::json json = to_json({3, 17, 0, 2, {{3, 0}, {3, 16}}}, options);
  options.sequence_len = 4;  // rows of any length are made from the same buffer
  EXPECT_EQ(parse_position(json, options).waiting.size(), 2u);
  options.seed = 1;
  EXPECT_TRUE(parse_position(json, options).waiting.empty());
  EXPECT_EQ(parse_position(json, options).document, 17u);
}

TEST(LoaderPosition, RefusesBuffersThatAreNone) {
  const LoaderOptions options = options_of(Packing::kBestFitCrop, 2, 8, true);
  const nlohmann::json good = to_json({3, 17, 0, 2, {{3, 0}, {3, 16}}}, options);
  const nlohmann::json bad_ones[] = {5, {5}, {{0, 5}}, {{0, {-1}}}, {{3, {5, 5}}}, {{3, {6, 5}}}, {{4, {0}}}, {{3, {17}}}};
  for (const nlohmann::json& waiting : bad_ones) {
    nlohmann::json bad = good;
    bad["waiting"] = nlohmann::json::parse(waiting.dump());
    EXPECT_THAT([&] { parse_position(bad, options); }, ThrowsMessage<DataError>(HasSubstr("\"waiting\" is "))) << waiting;
  }
  nlohmann::json bad = good;
  bad.erase("waiting");
  EXPECT_THAT([&] { parse_position(bad, options); }, ThrowsMessage<DataError>(HasSubstr("\"waiting\" is missing")));
}

TEST(LoaderPosition, OtherShapesContinueAtTheWindow) {
  const LoaderOptions options = options_of(Packing::kBestFit, 2, 8, true);
  const nlohmann::json json = to_json({3, 16, 5, 3}, options);
  LoaderOptions other = options;
  other.world_size = 4;  // the order is that of one rank
  other.rank = 3;
  EXPECT_EQ(parse_position(json, other).document, 16u);
  EXPECT_EQ(parse_position(json, other).offset, 5u);
  other = options;
  other.sequence_len = 16;
  EXPECT_EQ(parse_position(json, other).document, 16u);
  EXPECT_EQ(parse_position(json, other).offset, 0u);
  other = options;
  other.rows = 64;  // rows do not depend on the batch size
  EXPECT_EQ(parse_position(json, other).offset, 5u);
}

TEST(LoaderPosition, RefusesWhatIsNone) {
  const LoaderOptions options = options_of(Packing::kBestFit, 2, 8, true);
  const nlohmann::json good = to_json({3, 16, 5, 3}, options);
  const auto error = [&](const nlohmann::json& json, const std::string& message) {
    EXPECT_THAT([&] { parse_position(json, options); }, ThrowsMessage<DataError>(HasSubstr(message))) << json;
  };
  EXPECT_EQ(parse_position(nullptr, options).epoch, 0);
  error(5, "found JSON number, expected an object");
  error(nlohmann::json::object(), "packing null");
  error(to_json({}, options_of(Packing::kStream, 2, 8, true)), "packing \"stream\", this one's is \"best_fit\"");
  for (const char* key : {"epoch", "document", "row", "last_epoch", "sequence_len", "seed"}) {
    nlohmann::json bad = good;
    bad.erase(key);
    error(bad, std::string("\"") + key + "\" is missing");
    bad[key] = -1;
    error(bad, std::string("\"") + key + "\" is -1");
    bad[key] = "x";
    error(bad, std::string("\"") + key + "\" is \"x\"");
  }
}

}  // namespace
}  // namespace nanochat
