#include "data/shards/tokenize_pipeline.h"

#include <atomic>
#include <chrono>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/errors.h"
#include "data/shards/testing_tokenizer.h"

namespace nanochat {
namespace {

using namespace std::chrono_literals;
using testing::ByteTokenizer;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

// `count` documents "0", "1", ...; throws behind them when told to.
class CountingReader : public DocumentReader {
 public:
  explicit CountingReader(std::uint64_t count, bool fail_at_end = false, std::atomic<std::uint64_t>* read = nullptr)
      : count_(count), fail_at_end_(fail_at_end), read_(read) {}
  bool next(std::string& document) override {
    if (next_ == count_ && fail_at_end_) throw DataError("bad file");
    if (next_ == count_) return false;
    document = std::to_string(next_++);
    if (read_ != nullptr) *read_ = next_;
    return true;
  }
  std::uint64_t bytes_read() const override { return next_; }
  std::uint64_t bytes_total() const override { return count_; }

 private:
  std::uint64_t count_, next_ = 0;
  bool fail_at_end_;
  std::atomic<std::uint64_t>* read_;
};

std::string text_of(const TokenizedDocument& document) { return {document.tokens.begin(), document.tokens.end()}; }

TEST(TokenizePipeline, KeepsTheOrderWhateverTheWorkers) {
  const ByteTokenizer tokenizer;
  for (const int workers : {0, 1, 2, 5}) {
    TokenizePipeline pipeline(std::make_unique<CountingReader>(2000), tokenizer, workers,
                              [](std::uint64_t index) { return index % 3 != 1; });
    TokenizedDocument document;
    std::uint64_t expected = 0;
    while (pipeline.next(document)) {
      EXPECT_EQ(document.index, expected);
      EXPECT_EQ(text_of(document), std::to_string(expected));
      EXPECT_EQ(document.text_bytes, std::to_string(expected).size());
      EXPECT_GT(document.bytes_read, expected);
      expected += expected % 3 == 0 ? 2 : 1;
    }
    EXPECT_EQ(expected, 2001u - 1u);
    EXPECT_FALSE(pipeline.next(document));
  }
}

TEST(TokenizePipeline, ErrorsComeAfterTheDocumentsBeforeThem) {
  const ByteTokenizer plain;
  const ByteTokenizer poisoned(0us, "137");
  const auto count_until = [](TokenizePipeline& pipeline, const std::string& message) {
    TokenizedDocument document;
    std::uint64_t count = 0;
    EXPECT_THAT(
        [&] {
          while (pipeline.next(document)) ++count;
        },
        ThrowsMessage<DataError>(HasSubstr(message)));
    EXPECT_THROW(pipeline.next(document), DataError);
    return count;
  };
  TokenizePipeline bad_file(std::make_unique<CountingReader>(500, true), plain, 2, [](std::uint64_t) { return true; });
  EXPECT_EQ(count_until(bad_file, "bad file"), 500u);
  TokenizePipeline bad_text(std::make_unique<CountingReader>(500), poisoned, 2, [](std::uint64_t) { return true; });
  EXPECT_EQ(count_until(bad_text, "poison"), 137u);
}

TEST(TokenizePipeline, ReadsNoFurtherAheadThanItsBound) {
  const ByteTokenizer tokenizer;
  std::atomic<std::uint64_t> read = 0;
  TokenizePipeline pipeline(std::make_unique<CountingReader>(1'000'000, false, &read), tokenizer, 2,
                            [](std::uint64_t) { return true; });
  TokenizedDocument document;
  ASSERT_TRUE(pipeline.next(document));
  std::this_thread::sleep_for(50ms);
  EXPECT_LE(read, 64u * (2 * 2 + 2 + 2));  // chunks in flight, one handed out, one being read
}

TEST(TokenizePipeline, StopsPromptly) {
  const ByteTokenizer slow(20ms);
  const auto begin = std::chrono::steady_clock::now();
  {
    TokenizePipeline pipeline(std::make_unique<CountingReader>(100'000), slow, 2, [](std::uint64_t) { return true; });
    std::stop_source stop;
    std::jthread stopper([&] {
      std::this_thread::sleep_for(30ms);
      stop.request_stop();
    });
    TokenizedDocument document;
    EXPECT_FALSE(pipeline.next(document, stop.get_token()));  // the first chunk takes 1.3 s
  }
  // While nothing is selected, the reader must notice as well.
  {
    TokenizePipeline pipeline(std::make_unique<CountingReader>(~std::uint64_t{0}), slow, 1,
                              [](std::uint64_t) { return false; });
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 1s);
}

}  // namespace
}  // namespace nanochat
