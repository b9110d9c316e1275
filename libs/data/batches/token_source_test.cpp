#include "data/batches/token_source.h"

#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <thread>

#include <spdlog/fmt/fmt.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "core/elapsed.h"
#include "core/errors.h"
#include "core/sha256.h"
#include "core/testing.h"
#include "data/shards/testing_tokenizer.h"

namespace nanochat {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(Permutation, IsOne) {
  EXPECT_TRUE(rc::check("every index once", [] {
    const auto n = *rc::gen::inRange<std::uint64_t>(1, 700);
    const Permutation permutation(n, *rc::gen::arbitrary<std::uint64_t>());
    std::vector<std::uint64_t> seen(n);
    for (std::uint64_t i = 0; i < n; ++i) seen[i] = permutation(i);
    std::sort(seen.begin(), seen.end());
    for (std::uint64_t i = 0; i < n; ++i) RC_ASSERT(seen[i] == i);
  }));
}

// Neighbours go far apart and the seed matters: the mean distance of two random places is n/3.
TEST(Permutation, Mixes) {
  constexpr std::uint64_t kN = 10'000;
  const Permutation first(kN, 1), second(kN, 2);
  double distance = 0;
  std::uint64_t equal = 0;
  for (std::uint64_t i = 0; i + 1 < kN; ++i) {
    distance += std::abs(static_cast<double>(first(i)) - static_cast<double>(first(i + 1)));
    equal += first(i) == second(i) ? 1u : 0u;
  }
  EXPECT_NEAR(distance / static_cast<double>(kN - 1) / static_cast<double>(kN), 1.0 / 3, 0.02);
  EXPECT_LT(equal, 10u);
}

// Shards with documents that hold their number alone; the documents of a split as those numbers.
class SourceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::int32_t next = 0;
    for (const char* name : {"train-00000.tok", "train-00001.tok", "validation-00000.tok"}) {
      ShardWriter writer(folder_ / name, 1000, kFingerprint);
      for (int i = 0; i < 5; ++i) writer.add(std::vector<std::int32_t>{next++}, 1);
      writer.finish();
    }
  }
  std::vector<std::int32_t> numbers(const LoaderOptions& options, std::int64_t epoch = 0, std::uint64_t from = 0) const {
    ShardSource source({folder_.path().string()}, kFingerprint, options);
    source.seek(epoch, from);
    std::vector<std::int32_t> all, tokens;
    while (source.next(tokens, {})) all.push_back(tokens.at(0));
    return all;
  }

  testing::TemporaryDirectory folder_;
  const std::string kFingerprint = sha256_hex("x");
};

LoaderOptions in_order() {
  LoaderOptions options;
  options.shuffle = false;
  return options;
}

TEST_F(SourceTest, ReadsTheSplitInOrder) {
  LoaderOptions options = in_order();
  EXPECT_THAT(numbers(options), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
  EXPECT_THAT(numbers(options, 3, 7), ElementsAre(7, 8, 9));
  EXPECT_THAT(numbers(options, 0, 10), ElementsAre());
  options.split = Split::kValidation;
  EXPECT_THAT(numbers(options), ElementsAre(10, 11, 12, 13, 14));
  options.packing = Packing::kStream;
  options.shuffle = true;  // has no effect on a stream
  EXPECT_THAT(numbers(options), ElementsAre(10, 11, 12, 13, 14));
}

TEST_F(SourceTest, EveryEpochAndSeedHasItsOrder) {
  LoaderOptions options;
  const auto first = numbers(options, 0);
  EXPECT_EQ(first, numbers(options, 0));
  EXPECT_NE(first, numbers(options, 1));
  const auto tail = numbers(options, 0, 4);
  EXPECT_TRUE(std::equal(tail.begin(), tail.end(), first.begin() + 4, first.end()));
  options.seed = 43;
  EXPECT_NE(first, numbers(options, 0));
}

TEST_F(SourceTest, RefusesWhatDoesNotFit) {
  LoaderOptions options;
  const auto open = [&](const std::string& path, const std::string& fingerprint) {
    return [&options, path, fingerprint] { ShardSource({path}, fingerprint, options); };
  };
  const auto error = [](const std::string& message) { return ThrowsMessage<DataError>(HasSubstr(message)); };
  EXPECT_THAT(open(folder_.path().string(), sha256_hex("other")), error("was written with another tokenizer"));
  EXPECT_NO_THROW(open(folder_.path().string(), "")());
  EXPECT_THAT(open((folder_ / "validation-00000.tok").string(), ""), error("there is no training document"));
  EXPECT_THAT(open((folder_ / "none").string(), ""), error("no such file or folder"));
  EXPECT_THAT([&] { numbers(in_order(), 0, 11); }, error("document 11, is beyond the 10 documents"));
}

TEST(TextSource, SelectsSplitAndStart) {
  const testing::TemporaryDirectory folder;
  std::string rows;
  for (int i = 0; i < 30; ++i) rows += "{\"text\":\"" + std::string(1, static_cast<char>('0' + i)) + "\"}\n";
  testing::write_text(folder / "a.jsonl", rows);
  const auto tokenizer = std::make_shared<testing::ByteTokenizer>();
  const auto text = [&](Split split, std::uint64_t from) {
    LoaderOptions options;
    options.split = split;
    TextSource source({folder.path().string()}, tokenizer, 5, options, {});
    std::string all;
    std::vector<std::int32_t> tokens;
    for (int epoch = 0; epoch < 2; ++epoch) {
      source.seek(epoch, from);
      while (source.next(tokens, {})) all.append(tokens.begin(), tokens.end());
      all += '|';
    }
    return all;
  };
  EXPECT_EQ(text(Split::kValidation, 0), "49>CHM|49>CHM|");
  EXPECT_EQ(text(Split::kTrain, 0), "01235678:;<=?@ABDEFGIJKL|01235678:;<=?@ABDEFGIJKL|");
  EXPECT_EQ(text(Split::kTrain, 19), "GIJKL|GIJKL|");
  EXPECT_EQ(text(Split::kTrain, 99), "||");
}

// Both splits and every epoch read the text again.
TEST(TextSource, ReadsAPipeAsOftenAsItNeedsTo) {
  const testing::TemporaryDirectory folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  const std::jthread writer([path = folder / "pipe"] {
    std::ofstream(path) << "{\"text\":\"a\"}\n{\"text\":\"b\"}\n{\"text\":\"c\"}\n";
  });
  const auto tokenizer = std::make_shared<testing::ByteTokenizer>();
  const auto text = [&](Split split) {
    LoaderOptions options;
    options.split = split;
    TextSource source({(folder / "pipe").string()}, tokenizer, 3, options, {});
    std::string all;
    std::vector<std::int32_t> tokens;
    for (int epoch = 0; epoch < 2; ++epoch) {
      source.seek(epoch, 0);
      while (source.next(tokens, {})) all.append(tokens.begin(), tokens.end());
      all += '|';
    }
    return all;
  };
  EXPECT_EQ(text(Split::kTrain), "ab|ab|");
  EXPECT_EQ(text(Split::kValidation), "c|c|");
}

std::int64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  std::int64_t pages = 0, resident = 0;
  statm >> pages >> resident;
  return resident * 4096;
}

// 20 GB of shards, which are one file by a thousand names.
TEST(ManyShards, OpenAtOnceAndStayOutOfMemory) {
  constexpr std::uint64_t kShards = 1000, kDocuments = 4000, kTokens = 2500;
  constexpr std::int64_t kMostResident = 200 << 20;
  const testing::TemporaryDirectory folder;
  const std::string fingerprint = sha256_hex("tokenizer");
  {
    ShardWriter writer(folder / "train-00000.tok", 50000, fingerprint);
    std::vector<std::int32_t> document(kTokens);
    for (std::uint64_t i = 0; i < kDocuments; ++i) {
      std::iota(document.begin(), document.end(), static_cast<std::int32_t>(i));
      writer.add(document, kTokens);
    }
    writer.finish();
  }
  for (std::uint64_t i = 1; i < kShards; ++i) {
    std::filesystem::create_hard_link(folder / "train-00000.tok", folder / fmt::format("train-{:05}.tok", i));
  }
  const std::int64_t before = resident_bytes();
  const auto start = std::chrono::steady_clock::now();
  LoaderOptions options;
  options.shuffle = true;
  ShardSource source({folder.path().string()}, fingerprint, options);
  source.seek(0, 0);
  const double seconds = seconds_since(start);
  EXPECT_LT(seconds, 1.0) << "to open";
  std::vector<std::int32_t> tokens;
  std::int64_t most = 0;
  for (int i = 0; i < 20000; ++i) {
    ASSERT_TRUE(source.next(tokens, {}));
    ASSERT_EQ(tokens.size(), kTokens);
    if (i % 100 == 0) most = std::max(most, resident_bytes() - before);
  }
  EXPECT_LT(most, kMostResident);
}

}  // namespace
}  // namespace nanochat
