#include "data/text/filters.h"

#include <cctype>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/errors.h"
#include "core/random.h"
#include "data/text/text_measures.h"

namespace nanochat {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using Documents = std::vector<std::string>;

class ListReader : public DocumentReader {
 public:
  explicit ListReader(Documents documents) : documents_(std::move(documents)) {}
  bool next(std::string& document) override {
    if (next_ == documents_.size()) return false;
    document = documents_[next_++];
    if (document == "poison") throw DataError("poison");
    return true;
  }
  std::uint64_t bytes_read() const override { return next_; }
  std::uint64_t bytes_total() const override { return documents_.size(); }

 private:
  Documents documents_;
  std::size_t next_ = 0;
};

struct Filtered {
  Documents kept;
  FilterReport report;
};

Filtered filter(Documents documents, const FilterOptions& options) {
  FilteredDocuments reader(std::make_unique<ListReader>(std::move(documents)), options);
  Filtered result;
  std::uint64_t before = 0;
  for (std::string document; reader.next(document);) {
    EXPECT_GE(reader.bytes_read(), before);
    before = reader.bytes_read();
    result.kept.push_back(document);
  }
  EXPECT_EQ(reader.bytes_read(), reader.bytes_total());
  result.report = reader.report();
  return result;
}

// Words that hardly ever come twice in the same order.
std::string random_text(Rng& rng, int words) {
  std::string text;
  for (int i = 0; i < words; ++i) {
    for (std::uint64_t letters = 2 + rng.below(7); letters > 0; --letters) text += static_cast<char>('a' + rng.below(26));
    text += rng.below(8) == 0 ? ". " : " ";
  }
  return text;
}

TEST(Measures, Hash128IsTheKnownOne) {
  const auto hex = [](const Hash128& hash) { return std::pair(hash.low, hash.high); };
  EXPECT_EQ(hex(hash128("", 0)), std::pair(std::uint64_t{0}, std::uint64_t{0}));
  EXPECT_EQ(hex(hash128("The quick brown fox jumps over the lazy dog", 0)),
            std::pair(std::uint64_t{0xe34bbc7bbc071b6cULL}, std::uint64_t{0x7a433ca9c49a9347ULL}));
  EXPECT_FALSE(hash128("a", 1) == hash128("a", 2));
}

TEST(Measures, SymbolsAreWhatIsNeitherLetterDigitNorSpace) {
  EXPECT_EQ(symbol_share(""), 0.0);
  EXPECT_EQ(symbol_share("letters and 123\n\t"), 0.0);
  EXPECT_EQ(symbol_share("\xe4\xbd\xa0\xe5\xa5\xbd \xd0\x9f\xd1\x80 \xe0\xa4\xa8\xe0\xa5\x8d caf\xc3\xa9"), 0.0);
  EXPECT_EQ(symbol_share("a.b!"), 0.5);
  EXPECT_EQ(symbol_share("\xf0\x9f\x98\x80\xe2\x80\xa6"
                         "ab"),
            0.5)
      << "emoji, ellipsis";
  EXPECT_EQ(symbol_share("\xe3\x80\x82\xef\xbc\x8c\xef\xbf\xbd\xee\x80\x80"), 1.0)
      << "ideographic full stop and comma, U+FFFD, private";
}

TEST(Measures, RepetitionIsTheShareThatCameBefore) {
  Rng rng(1);
  const std::string text = random_text(rng, 300);
  EXPECT_LT(repetition_share(text), 0.01);
  EXPECT_NEAR(repetition_share(text + text), 0.5, 0.02);
  EXPECT_NEAR(repetition_share(text + text + text + text), 0.75, 0.02);
  EXPECT_GT(repetition_share(std::string(1000, 'x')), 0.95);
  EXPECT_EQ(repetition_share("short"), 0.0);
  const std::string large = random_text(rng, 30000);  // sampled
  EXPECT_LT(repetition_share(large), 0.01);
  EXPECT_NEAR(repetition_share(large + large), 0.5, 0.02);
}

// How often two texts agree in a band, over many pairs with a share of their words exchanged.
double found_share(double changed, std::uint64_t seed) {
  Rng rng(seed);
  int found = 0;
  constexpr int kPairs = 200;
  for (int pair = 0; pair < kPairs; ++pair) {
    const std::string text = random_text(rng, 400);
    std::string other = text;
    const auto replaced = static_cast<std::size_t>(changed * static_cast<double>(text.size()));
    if (replaced > 0)
      other.replace(rng.below(text.size() - replaced), replaced, random_text(rng, 1 + static_cast<int>(replaced / 6)));
    const MinHash a = min_hash(text, 42), b = min_hash(other, 42);
    bool hit = false;
    for (std::size_t i = 0; i < kBands; ++i) hit = hit || a.bands[i] == b.bands[i];
    found += hit ? 1 : 0;
  }
  return found / static_cast<double>(kPairs);
}

TEST(Measures, MinHashFindsWhatIsMostlyTheSame) {
  EXPECT_EQ(found_share(0.0, 1), 1.0);
  EXPECT_GT(found_share(0.03, 2), 0.97) << "similarity 0.93";
  const double half = found_share(0.17, 3);  // similarity about 0.7
  EXPECT_GT(half, 0.35);
  EXPECT_LT(half, 0.8);
  EXPECT_LT(found_share(0.5, 4), 0.02) << "similarity 0.33";
  Rng rng(5);
  const std::string text = random_text(rng, 100);
  std::string shouted = text;
  for (char& c : shouted) c = c == ' ' ? '\n' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  EXPECT_EQ(min_hash(text, 1).bands, min_hash("  " + shouted, 1).bands) << "case, white space and punctuation";
  EXPECT_FALSE(min_hash("too short to say", 1).enough);
}

TEST(Filters, EachDropsItsOwnAndSaysSo) {
  Rng rng(2);
  const std::string good = random_text(rng, 100), other = random_text(rng, 100);
  std::string near_copy = good;
  near_copy.replace(10, 5, "QQQQQ");
  FilterOptions options;
  options.min_bytes = 10;
  options.max_bytes = 5000;
  options.max_symbols = 0.4;
  options.max_repetition = 0.5;
  options.drop_duplicates = options.drop_near_duplicates = true;
  const Documents documents = {good,  "tiny", std::string(6000, 'y'), "!!!??? *** ###", std::string(400, 'z'), good, near_copy,
                               other, "tiny"};
  const Filtered result = filter(documents, options);
  EXPECT_THAT(result.kept, ElementsAre(good, other));
  std::vector<std::pair<std::string, std::uint64_t>> counts;
  for (const FilterCount& count : result.report.dropped) counts.emplace_back(count.name, count.documents);
  EXPECT_THAT(counts, ElementsAre(std::pair("too_short", 2u), std::pair("too_long", 1u), std::pair("symbols", 1u),
                                  std::pair("repetition", 1u), std::pair("duplicate", 1u), std::pair("near_duplicate", 1u)));
  const nlohmann::json report = to_json(result.report);
  EXPECT_EQ(report["documents"], 9);
  EXPECT_EQ(report["kept_documents"], 2);
  EXPECT_EQ(report["kept_text_bytes"], good.size() + other.size());
  EXPECT_EQ(report["dropped"][0]["examples"][1]["document"], 8);
  EXPECT_EQ(report["dropped"][0]["examples"][1]["beginning"], "tiny");
  EXPECT_EQ(report["dropped"][4]["examples"][0]["value"], 0.0) << "the document that it repeats";
}

TEST(Filters, WithoutOneNothingIsDropped) {
  EXPECT_FALSE(FilterOptions().any());
  EXPECT_THAT(filter({"a", "a", "!!!"}, {}).kept, ElementsAre("a", "a", "!!!"));
}

// Many documents, so that batches and a growing table come into it.
TEST(Filters, ExactDuplicatesAreThoseOfASet) {
  Rng rng(3);
  Documents documents, unique;
  std::set<std::string> seen;
  for (int i = 0; i < 30000; ++i) {
    documents.push_back("document " + std::to_string(rng.below(12000)));
    if (seen.insert(documents.back()).second) unique.push_back(documents.back());
  }
  FilterOptions options;
  options.drop_duplicates = true;
  for (const int threads : {1, 4}) {
    options.threads = threads;
    EXPECT_EQ(filter(documents, options).kept, unique);
  }
}

TEST(Filters, ThreadsDoNotChangeAnything) {
  Rng rng(4);
  Documents documents;
  for (int i = 0; i < 600; ++i) {
    documents.push_back(i % 3 == 2 ? documents[rng.below(documents.size())]
                                   : random_text(rng, 20 + static_cast<int>(rng.below(300))));
    if (i % 5 == 0) documents.back() += random_text(rng, 10);
  }
  FilterOptions options;
  options.max_symbols = 0.03;
  options.drop_duplicates = options.drop_near_duplicates = true;
  options.threads = 1;
  const Filtered one = filter(documents, options);
  options.threads = 5;
  const Filtered five = filter(documents, options);
  EXPECT_EQ(one.kept, five.kept);
  EXPECT_EQ(to_json(one.report), to_json(five.report));
  EXPECT_GT(one.report.dropped[1].documents, 50u);
  EXPECT_GT(one.report.dropped[2].documents, 10u);
}

TEST(Filters, AnErrorComesAfterTheDocumentsBeforeIt) {
  FilterOptions options;
  options.min_bytes = 2;
  FilteredDocuments reader(std::make_unique<ListReader>(Documents{"one", "x", "two", "poison"}), options);
  std::string document;
  EXPECT_TRUE(reader.next(document));
  EXPECT_TRUE(reader.next(document));
  EXPECT_EQ(document, "two");
  EXPECT_THAT([&] { reader.next(document); }, ThrowsMessage<DataError>(HasSubstr("poison")));
}

TEST(Filters, OptionsOutOfRangeAreRefused) {
  FilterOptions options;
  options.max_symbols = 1.5;
  EXPECT_THAT([&] { filter({}, options); },
              ThrowsMessage<ConfigError>(HasSubstr("max symbols is 1.5, expected a share from 0 to 1")));
  options = {};
  options.min_bytes = 10;
  options.max_bytes = 5;
  EXPECT_THAT([&] { filter({}, options); }, ThrowsMessage<ConfigError>(HasSubstr("documents of 10 to 5 bytes")));
}

}  // namespace
}  // namespace nanochat
