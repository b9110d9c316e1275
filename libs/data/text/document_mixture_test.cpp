#include "data/text/document_mixture.h"

#include <sys/stat.h>

#include <fstream>
#include <limits>
#include <map>
#include <set>
#include <thread>

#include <gmock/gmock.h>
#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/testing.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
namespace fs = std::filesystem;

class MixtureTest : public ::testing::Test {
 protected:
  // A .jsonl of `count` documents of `bytes` bytes that begin with `letter` and a number.
  std::vector<fs::path> source(char letter, int count, int bytes) const {
    std::string lines;
    for (int i = 0; i < count; ++i) {
      std::string text = fmt::format("{}{} ", letter, i);
      text.resize(static_cast<std::size_t>(bytes), letter);
      lines += "{\"text\": \"" + text + "\"}\n";
    }
    testing::write_text(folder_ / fmt::format("{}.jsonl", letter), lines);
    return {folder_ / fmt::format("{}.jsonl", letter)};
  }

  static std::vector<std::string> read(DocumentReader& reader) {
    std::vector<std::string> documents;
    for (std::string document; reader.next(document);) {
      EXPECT_LE(reader.bytes_read(), reader.bytes_total());
      documents.push_back(document);
    }
    return documents;
  }

  static std::map<char, double> bytes_of(const std::vector<std::string>& documents) {
    std::map<char, double> bytes;
    for (const std::string& document : documents) bytes[document[0]] += static_cast<double>(document.size());
    return bytes;
  }

  testing::TemporaryDirectory folder_;
};

TEST_F(MixtureTest, EachSourceHasItsShareOfTheBytesAtAnyPoint) {
  const auto reader = open_document_mixture({source('a', 4000, 100), source('b', 4000, 30), source('c', 4000, 700)},
                                            {.weights = {2, 1, 7}}, {});
  const auto documents = read(*reader);
  for (const std::size_t end : {documents.size() / 10, documents.size() / 2, documents.size()}) {
    const auto bytes = bytes_of({documents.begin(), documents.begin() + static_cast<std::ptrdiff_t>(end)});
    const double all = bytes.at('a') + bytes.at('b') + bytes.at('c');
    EXPECT_NEAR(bytes.at('a'), 0.2 * all, 700);  // a document of the longest kind
    EXPECT_NEAR(bytes.at('b'), 0.1 * all, 700);
    EXPECT_NEAR(bytes.at('c'), 0.7 * all, 700);
  }
}

TEST_F(MixtureTest, EndsWithTheFirstSourceAndRepeatsNothing) {
  const auto reader = open_document_mixture({source('a', 10, 50), source('b', 1000, 50)}, {.weights = {1, 1}}, {});
  const auto documents = read(*reader);
  EXPECT_EQ(std::set<std::string>(documents.begin(), documents.end()).size(), documents.size());
  EXPECT_EQ(bytes_of(documents).at('a'), 500);
  EXPECT_EQ(bytes_of(documents).at('b'), 500);
}

TEST_F(MixtureTest, UntilAllBeginsShortSourcesAnew) {
  const auto reader = open_document_mixture({source('a', 10, 50), source('b', 1000, 50)},
                                            {.weights = {1, 1}, .until_all = true}, {});
  const auto documents = read(*reader);
  EXPECT_EQ(std::set<std::string>(documents.begin(), documents.end()).size(), 1010);
  const auto bytes = bytes_of(documents);
  EXPECT_EQ(bytes.at('b'), 50'000);
  EXPECT_NEAR(bytes.at('a'), 50'000, 50);
}

TEST_F(MixtureTest, RefusesWeightsThatDoNotFit) {
  const auto refused = [&](std::vector<double> weights, const char* why) {
    EXPECT_THAT(
        [&] {
          open_document_mixture({source('a', 1, 50), source('b', 1, 50)}, {.weights = weights}, {});
        },
        ThrowsMessage<ConfigError>(HasSubstr(why)));
  };
  refused({1}, "1 weights for 2 sources");
  refused({1, 0}, "a weight of 0");
  refused({1, -2}, "a weight of -2");
  refused({1, std::numeric_limits<double>::infinity()}, "a weight of inf");
}

TEST_F(MixtureTest, APipeBeginsAnewToo) {
  ASSERT_EQ(::mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  const std::jthread writer([path = folder_ / "pipe"] { std::ofstream(path) << "{\"text\":\"p0\"}\n{\"text\":\"p1\"}\n"; });
  const auto reader = open_document_mixture({{folder_ / "pipe"}, source('a', 5, 2)}, {.weights = {1, 1}, .until_all = true},
                                            {});
  std::map<std::string, int> times;
  for (const std::string& document : read(*reader)) ++times[document];
  EXPECT_EQ(times["p0"], 3);
  EXPECT_GE(times["p1"], 2);
}

TEST_F(MixtureTest, ABadRowCountsOnceHoweverOftenItsSourceBegins) {
  testing::write_text(folder_ / "bad.jsonl", "{\"text\":\"b\"}\nbroken\n");
  ReaderOptions options;
  options.bad_rows = std::make_shared<BadRows>(1);
  const auto reader = open_document_mixture({{folder_ / "bad.jsonl"}, source('a', 20, 1)},
                                            {.weights = {1, 1}, .until_all = true}, options);
  EXPECT_GT(read(*reader).size(), 30U);
  EXPECT_EQ(options.bad_rows->count(), 1U);
}

TEST_F(MixtureTest, AnErrorOfASourceNamesItsLine) {
  auto good = source('a', 100, 50);
  testing::write_text(folder_ / "bad.jsonl", "{\"text\": \"fine\"}\n{\"text\": 3}\n");
  const auto reader = open_document_mixture({good, {folder_ / "bad.jsonl"}}, {.weights = {1, 1}}, {});
  EXPECT_THAT([&] { read(*reader); }, ThrowsMessage<DataError>(HasSubstr("bad.jsonl:2")));
}

}  // namespace
}  // namespace nanochat
