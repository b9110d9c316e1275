#include "data/shards/corpus.h"

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/errors.h"
#include "core/testing.h"
#include "data/shards/shard.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

class Corpus : public ::testing::Test {
 protected:
  void write_shard(const fs::path& path, const std::vector<std::int32_t>& tokens) const {
    fs::create_directories(path.parent_path());
    ShardWriter writer(path, 265, std::string(64, 'a'));
    writer.add(tokens, tokens.size());
    writer.finish();
  }
  void write_rows(const std::string& name, int count) const {
    std::string text;
    for (int i = 0; i < count; ++i) text += "{\"text\": \"document " + std::to_string(i) + "\"}\n";
    testing::write_text(folder_ / name, text);
  }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  testing::TemporaryDirectory folder_;
};

TEST_F(Corpus, OfShardsIsKnownByTheirContentsWhereverTheyLie) {
  write_shard(folder_ / "here/train-00000.tok", {1, 2, 3});
  write_shard(folder_ / "there/train-00000.tok", {1, 2, 3});
  write_shard(folder_ / "other/train-00000.tok", {1, 2, 4});
  const std::string here = corpus_fingerprint({path("here")});
  EXPECT_EQ(here, corpus_fingerprint({path("there")}));
  EXPECT_EQ(here, corpus_fingerprint({path("here/train-00000.tok")}));
  EXPECT_NE(here, corpus_fingerprint({path("other")}));
  write_shard(folder_ / "there/train-00001.tok", {5});
  EXPECT_NE(here, corpus_fingerprint({path("there")}));
}

TEST_F(Corpus, OfTextIsKnownByNamesAndSizes) {
  write_rows("a.jsonl", 3);
  const std::string before = corpus_fingerprint({path("a.jsonl")});
  EXPECT_EQ(before, corpus_fingerprint({path("")})) << "the folder that holds it alone";
  write_rows("a.jsonl", 4);
  EXPECT_NE(before, corpus_fingerprint({path("a.jsonl")}));
  EXPECT_THAT([this] { corpus_fingerprint({path("nowhere.txt")}); }, ThrowsMessage<DataError>(HasSubstr("nowhere.txt")));
}

TEST_F(Corpus, HasAValidationSplitWhereDocumentsAreHeldOut) {
  write_rows("a.jsonl", 19);
  EXPECT_FALSE(has_validation({path("a.jsonl")}, 20));
  EXPECT_FALSE(has_validation({path("a.jsonl")}, 0));
  EXPECT_TRUE(has_validation({path("a.jsonl")}, 19));
  write_shard(folder_ / "shards/train-00000.tok", {1, 2, 3});
  EXPECT_FALSE(has_validation({path("shards")}, 20)) << "shards hold what was held out when they were made";
  write_shard(folder_ / "shards/validation-00000.tok", {1, 2, 3});
  EXPECT_TRUE(has_validation({path("shards")}, 0));
}

}  // namespace
}  // namespace nanochat
