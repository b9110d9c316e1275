#include "data/prepare.h"

#include <csignal>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/interrupt.h"
#include "core/progress.h"
#include "core/sha256.h"
#include "core/testing.h"
#include "data/shard.h"
#include "data/testing_tokenizer.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using testing::ByteTokenizer;
namespace fs = std::filesystem;

class CountingProgress : public SilentProgress {
 public:
  void start(std::string_view, std::int64_t all, std::string_view) override { total = all; }
  void advance(std::int64_t amount) override {
    done += amount;
    if (interrupt_at > 0 && done >= interrupt_at) std::raise(SIGINT);
  }
  std::int64_t total = -1, done = 0, interrupt_at = 0;
};

class PrepareTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string rows;
    for (int i = 0; i < 1000; ++i) rows += "{\"text\":\"document number " + std::to_string(i) + "\"}\n";
    fs::create_directories(folder_ / "text");
    testing::write_text(folder_ / "text" / "a.jsonl", rows);
    options_.tokens_per_shard = 5000;
  }
  void TearDown() override { reset_interrupt_for_testing(); }

  PrepareResult prepare(const std::string& output, const Tokenizer& tokenizer = ByteTokenizer()) {
    return prepare_shards({(folder_ / "text").string()}, tokenizer, folder_ / output, options_, progress_);
  }
  // Names and contents of everything in the folder.
  std::map<std::string, std::string> contents(const std::string& output) const {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::directory_iterator(folder_ / output)) {
      files[entry.path().filename().string()] = read_file(entry.path());
    }
    return files;
  }

  testing::TemporaryDirectory folder_;
  PrepareOptions options_;
  CountingProgress progress_;
};

TEST_F(PrepareTest, WritesEveryDocumentInOrder) {
  const PrepareResult result = prepare("out");
  EXPECT_EQ(result.train_documents, 950u);
  EXPECT_EQ(result.validation_documents, 50u);
  EXPECT_FALSE(result.interrupted);
  std::map<std::string, int> next = {{"train", 0}, {"validation", 19}};
  std::uint64_t tokens = 0;
  for (const fs::path& path : result.shards) {
    const ShardReader shard(path);
    shard.verify();
    EXPECT_EQ(shard.info().tokenizer_fingerprint, ByteTokenizer().fingerprint());
    const std::string split = path.filename().string().substr(0, path.filename().string().find('-'));
    for (std::uint64_t i = 0; i < shard.info().documents; ++i) {
      std::vector<std::int32_t> ids;
      shard.document(i, ids);
      int& number = next[split];
      EXPECT_EQ(std::string(ids.begin(), ids.end()), "document number " + std::to_string(number));
      number += split == "validation" ? 20 : number % 20 == 18 ? 2 : 1;
      tokens += ids.size();
    }
    EXPECT_LT(shard.info().tokens, 5000u + 30u);
  }
  EXPECT_EQ(next["train"], 1000);
  EXPECT_EQ(next["validation"], 1019);
  EXPECT_EQ(tokens, result.train_tokens + result.validation_tokens);
  EXPECT_EQ(tokens, result.text_bytes);
  EXPECT_EQ(progress_.done, progress_.total);
  EXPECT_EQ(progress_.total, static_cast<std::int64_t>(fs::file_size(folder_ / "text" / "a.jsonl")));
}

TEST_F(PrepareTest, TheManifestDescribesTheFolder) {
  const PrepareResult result = prepare("out");
  const auto files = contents("out");
  EXPECT_EQ(files.size(), result.shards.size() + 2);  // tokenizer.json, manifest.json
  const auto manifest = nlohmann::json::parse(files.at("manifest.json"));
  EXPECT_EQ(manifest["tokenizer"]["fingerprint"], ByteTokenizer().fingerprint());
  EXPECT_EQ(manifest["train"]["documents"], 950);
  EXPECT_EQ(manifest["train"]["tokens"], result.train_tokens);
  EXPECT_EQ(manifest["validation"]["tokens"], result.validation_tokens);
  EXPECT_EQ(manifest["options"]["tokens_per_shard"], 5000);
  ASSERT_EQ(manifest["shards"].size(), result.shards.size());
  for (const auto& row : manifest["shards"]) {
    const std::string& bytes = files.at(row["file"].get<std::string>());
    EXPECT_EQ(row["bytes"], bytes.size());
    EXPECT_EQ(row["sha256"], sha256_hex(bytes));
  }
}

TEST_F(PrepareTest, WorkersDoNotChangeAnything) {
  options_.workers = 1;
  prepare("one");
  options_.workers = 5;
  prepare("five");
  EXPECT_EQ(contents("one"), contents("five"));
}

TEST_F(PrepareTest, HoldsOutNothingWhenToldSo) {
  options_.validation_every = 0;
  const PrepareResult result = prepare("out");
  EXPECT_EQ(result.train_documents, 1000u);
  EXPECT_EQ(result.validation_documents, 0u);
  EXPECT_FALSE(fs::exists(folder_ / "out" / "validation-00000.tok"));
}

TEST_F(PrepareTest, AnInterruptKeepsWholeShardsAndTheRerunIsTheSame) {
  prepare("whole");
  const auto whole = contents("whole");
  install_interrupt_handlers();
  progress_.interrupt_at = progress_.done + progress_.total / 2;
  const PrepareResult part = prepare("again");
  EXPECT_TRUE(part.interrupted);
  EXPECT_LT(part.train_documents, 950u);
  EXPECT_FALSE(fs::exists(folder_ / "again" / "manifest.json"));
  for (const auto& [name, bytes] : contents("again")) {
    if (name == "preparing.json") continue;
    EXPECT_EQ(bytes, whole.at(name)) << name;
  }
  reset_interrupt_for_testing();
  progress_.interrupt_at = 0;
  testing::write_text(folder_ / "again" / ".train-00003.tok.tmp-1-1", "left by a kill");
  EXPECT_FALSE(prepare("again").interrupted);
  EXPECT_EQ(contents("again"), whole);
}

TEST_F(PrepareTest, AnotherPreparationIsReplacedOnlyWhenAsked) {
  prepare("out");
  const auto before = contents("out");
  options_.tokens_per_shard = 100'000;
  const auto error = [](const std::string& message) { return ThrowsMessage<ConfigError>(HasSubstr(message)); };
  EXPECT_THAT([&] { prepare("out"); }, error("already holds prepared data (manifest.json)"));
  EXPECT_EQ(contents("out"), before);
  fs::rename(folder_ / "out" / "manifest.json", folder_ / "out" / "preparing.json");
  EXPECT_THAT([&] { prepare("out"); }, error("an unfinished preparation of other text or options"));
  options_.overwrite = true;
  const PrepareResult result = prepare("out");
  EXPECT_EQ(result.shards.size(), 2u);
  EXPECT_EQ(contents("out").size(), 4u);
}

TEST_F(PrepareTest, BadInputLeavesNothingBehind) {
  testing::write_text(folder_ / "text" / "a.jsonl", "\n\n");
  EXPECT_THAT([&] { prepare("out"); }, ThrowsMessage<DataError>(HasSubstr("no text in")));
  testing::write_text(folder_ / "text" / "a.jsonl", "{\"text\":7}\n");
  EXPECT_THAT([&] { prepare("out"); }, ThrowsMessage<DataError>(HasSubstr("a.jsonl:1")));
  EXPECT_FALSE(fs::exists(folder_ / "out"));
  options_.tokens_per_shard = 0;
  EXPECT_THROW(prepare("out"), ConfigError);
}

TEST_F(PrepareTest, AnErrorOnTheWayLeavesOnlyWholeShards) {
  EXPECT_THAT([&] { prepare("out", ByteTokenizer({}, "number 700")); }, ThrowsMessage<DataError>(HasSubstr("poison")));
  EXPECT_FALSE(fs::exists(folder_ / "out" / "manifest.json"));
  std::size_t shards = 0;
  for (const auto& entry : fs::directory_iterator(folder_ / "out")) {
    EXPECT_FALSE(entry.path().filename().string().starts_with(".")) << entry.path();
    if (entry.path().extension() == ".tok") {
      ShardReader(entry.path()).verify();
      ++shards;
    }
  }
  EXPECT_GE(shards, 1u);
}

}  // namespace
}  // namespace nanochat
