#include "data/batches/loader.h"

#include <chrono>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/progress.h"
#include "core/random.h"
#include "core/testing.h"
#include "data/shards/prepare.h"
#include "data/shards/testing_tokenizer.h"

namespace nanochat {
namespace {

using namespace std::chrono_literals;
using testing::ByteTokenizer;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

// A corpus of 200 documents of 1 to 400 bytes, as text and as shards of about 2,000 tokens.
class LoaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Rng rng(7);
    std::string rows;
    for (int i = 0; i < 200; ++i) {
      std::string text(1 + rng.below(400), 'a');
      for (char& c : text) c = static_cast<char>('a' + rng.below(26));
      rows += nlohmann::json{{"text", text}}.dump() + "\n";
    }
    testing::write_text(folder_ / "corpus.jsonl", rows);
    PrepareOptions options;
    options.tokens_per_shard = 2000;
    SilentProgress progress;
    prepare_shards({text()}, *tokenizer_, folder_ / "shards", options, progress);
  }

  std::string text() const { return (folder_ / "corpus.jsonl").string(); }
  std::unique_ptr<Loader> shards(const LoaderOptions& options, const nlohmann::json& position = nullptr) const {
    return make_shard_loader({(folder_ / "shards").string()}, tokenizer_->bos_id(), tokenizer_->fingerprint(), options,
                             position);
  }
  std::unique_ptr<Loader> raw(const LoaderOptions& options, const nlohmann::json& position = nullptr) const {
    return make_text_loader({text()}, tokenizer_, 20, options, position);
  }
  static LoaderOptions options() {
    LoaderOptions options;
    options.rows = 4;
    options.sequence_len = 64;
    options.buffer_documents = 30;
    options.refill_documents = 7;
    return options;
  }

  testing::TemporaryDirectory folder_;
  std::shared_ptr<const Tokenizer> tokenizer_ = std::make_shared<ByteTokenizer>();
};

std::vector<TokenBatch> take(Loader& loader, std::size_t count) {
  std::vector<TokenBatch> batches(count);
  for (TokenBatch& batch : batches) EXPECT_TRUE(loader.next(batch));
  return batches;
}

bool equal(const std::vector<TokenBatch>& a, const std::vector<TokenBatch>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const TokenBatch& x, const TokenBatch& y) {
    return x.inputs == y.inputs && x.targets == y.targets && x.rows == y.rows && x.sequence_len == y.sequence_len;
  });
}

TEST_F(LoaderTest, PositionsContinueWhateverWasPrefetched) {
  for (const Packing packing : {Packing::kBestFit, Packing::kBestFitCrop, Packing::kStream}) {
    for (const bool from_text : {false, true}) {
      LoaderOptions now = options();
      now.packing = packing;
      const auto open = [&](const nlohmann::json& position) { return from_text ? raw(now, position) : shards(now, position); };
      const auto whole = open(nullptr);
      const auto begin = whole->position();
      const auto head = take(*whole, 57);
      const auto position = nlohmann::json::parse(whole->position().dump());
      const auto tail = take(*whole, 150);
      EXPECT_GT(whole->epoch(), 0);
      EXPECT_LT(position.dump().size(), packing == Packing::kBestFitCrop ? 400u : 200u);
      for (const int prefetch : {0, 1, 7}) {
        now.prefetch = prefetch;
        EXPECT_TRUE(equal(take(*open(position), 150), tail));
        EXPECT_TRUE(equal(take(*open(begin), 57), head));
      }
    }
  }
}

TEST_F(LoaderTest, ThreadsChangeNothing) {
  LoaderOptions now = options();
  const auto expected = take(*raw(now), 40);
  now.workers = 4;
  EXPECT_TRUE(equal(take(*raw(now), 40), expected));
  now.prefetch = 0;
  EXPECT_TRUE(equal(take(*raw(now), 40), expected));
}

TEST_F(LoaderTest, TextAndShardsGiveTheSameRowsUnshuffled) {
  for (const Packing packing : {Packing::kBestFit, Packing::kBestFitCrop, Packing::kStream}) {
    for (const Split split : {Split::kTrain, Split::kValidation}) {
      LoaderOptions now = options();
      now.packing = packing;
      now.split = split;
      now.shuffle = false;
      EXPECT_TRUE(equal(take(*raw(now), 90), take(*shards(now), 90)));
    }
  }
}

// What ranks get is what one process gets, dealt out; a position of some ranks continues the order with any number.
TEST_F(LoaderTest, RanksShareOneOrder) {
  for (const Packing packing : {Packing::kBestFit, Packing::kBestFitCrop, Packing::kStream}) {
    for (const bool from_text : {false, true}) {
      LoaderOptions now = options();
      now.packing = packing;
      const auto open = [&](int rank, int world_size, const nlohmann::json& position) {
        LoaderOptions mine = now;
        mine.rank = rank;
        mine.world_size = world_size;
        return from_text ? raw(mine, position) : shards(mine, position);
      };
      const auto whole = take(*open(0, 1, nullptr), 72);
      nlohmann::json position;
      std::size_t done = 0;
      for (const int world_size : {2, 1, 4, 3}) {  // the same run, resumed with other numbers
        constexpr std::size_t kBatches = 12;
        std::vector<nlohmann::json> positions;
        for (int rank = 0; rank < world_size; ++rank) {
          const auto loader = open(rank, world_size, position);
          for (std::size_t i = static_cast<std::size_t>(rank); i < kBatches; i += static_cast<std::size_t>(world_size)) {
            EXPECT_TRUE(equal(take(*loader, 1), {whole[done + i]}))
                << "rank " << rank << " of " << world_size << ", batch " << done + i;
          }
          positions.push_back(loader->position());
        }
        for (const nlohmann::json& of_rank : positions) EXPECT_EQ(of_rank, positions.front());
        position = positions.front();
        done += kBatches;
      }
    }
  }
}

// The last batches of an epoch that ends go to the first ranks.
TEST_F(LoaderTest, RanksEndTogetherOrOneBatchEarlier) {
  LoaderOptions now = options();
  now.loop = false;
  const auto count = [](Loader& loader) {
    TokenBatch batch;
    std::size_t batches = 0;
    while (loader.next(batch)) ++batches;
    EXPECT_FALSE(loader.next(batch));
    return batches;
  };
  const std::size_t whole = count(*shards(now));
  now.world_size = 4;
  for (now.rank = 0; now.rank < 4; ++now.rank) {
    EXPECT_EQ(count(*shards(now)), (whole + 3 - static_cast<std::size_t>(now.rank)) / 4);
  }
}

TEST_F(LoaderTest, AnEpochHasEveryTokenOnceAndThenEnds) {
  LoaderOptions now = options();
  now.rows = 1;
  now.loop = false;
  std::uint64_t tokens = 0;
  TokenBatch batch;
  const auto loader = shards(now);
  while (loader->next(batch)) {
    EXPECT_EQ(batch.inputs[0], testing::kByteBos);
    for (const std::int32_t target : batch.targets) tokens += target >= 0 && target != testing::kByteBos ? 1u : 0u;
  }
  EXPECT_FALSE(loader->next(batch));
  EXPECT_EQ(loader->epoch(), 0);
  const auto manifest = nlohmann::json::parse(read_file(folder_ / "shards" / "manifest.json"));
  EXPECT_GT(manifest["train"]["shards"], 5);
  EXPECT_EQ(tokens, manifest["train"]["tokens"].get<std::uint64_t>());
}

TEST_F(LoaderTest, SeedAndEpochChangeTheOrder) {
  LoaderOptions now = options();
  const auto first = take(*shards(now), 20);
  EXPECT_TRUE(equal(take(*shards(now), 20), first));
  now.seed = 1;
  EXPECT_FALSE(equal(take(*shards(now), 20), first));
  now.seed = 42;
  now.shuffle = false;
  EXPECT_FALSE(equal(take(*shards(now), 20), first));
}

TEST_F(LoaderTest, ErrorsReachTheCallerAndNothingFollows) {
  testing::write_text(folder_ / "bad.jsonl", "{\"text\":\"fine\"}\n{\"text\":\n");
  const auto loader = make_text_loader({(folder_ / "bad.jsonl").string()}, tokenizer_, 0, options(), nullptr);
  TokenBatch batch;
  EXPECT_THAT([&] { loader->next(batch); }, ThrowsMessage<DataError>(HasSubstr("bad.jsonl:2: malformed JSON")));
  EXPECT_FALSE(loader->next(batch));
}

TEST_F(LoaderTest, RefusesOptionsOutOfRange) {
  const auto error = [&](auto change, const std::string& message) {
    LoaderOptions bad = options();
    change(bad);
    EXPECT_THAT([&] { shards(bad); }, ThrowsMessage<ConfigError>(HasSubstr(message)));
    EXPECT_THROW(raw(bad), ConfigError);
  };
  error([](LoaderOptions& o) { o.rows = 0; }, "the number of rows is 0");
  error([](LoaderOptions& o) { o.sequence_len = 0; }, "the sequence length is 0");
  error([](LoaderOptions& o) { o.rows = std::int64_t{1} << 40; }, "at most");
  error([](LoaderOptions& o) { o.world_size = 0; }, "the number of ranks is 0");
  error([](LoaderOptions& o) { o.rank = 1; }, "the rank is 1, expected 0 to 0");
  error([](LoaderOptions& o) { o.prefetch = -1; }, "prefetch is -1");
}

TEST_F(LoaderTest, IsDestroyedPromptlyWhileItWorks) {
  const auto slow = std::make_shared<ByteTokenizer>(50ms);
  const auto begin = std::chrono::steady_clock::now();
  {
    const auto loader = make_text_loader({text()}, slow, 20, options(), nullptr);  // its first window takes 10 s
  }
  {
    const auto loader = shards(options());
    take(*loader, 1);  // the queue is full, or soon will be
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 2s);
}

}  // namespace
}  // namespace nanochat
