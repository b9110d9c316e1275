#include "data/shards/prepare.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/folder_lock.h"
#include "core/interrupt.h"
#include "core/progress.h"
#include "core/sha256.h"
#include "core/testing.h"
#include "data/shards/shard.h"
#include "data/shards/testing_tokenizer.h"

namespace nanochat {
namespace {

using testing::ByteTokenizer;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
namespace fs = std::filesystem;

class CountingProgress : public SilentProgress {
 public:
  void start(std::string_view, std::int64_t all, std::string_view) override { total = all; }
  void advance(std::int64_t amount) override { done += amount; }
  std::int64_t total = -1, done = 0;
};

class PrepareTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(folder_ / "text");
    write_corpus(1000);
    options_.tokens_per_shard = 5000;
  }
  void write_corpus(int documents) const {
    std::string rows;
    for (int i = 0; i < documents; ++i) rows += "{\"text\":\"document number " + std::to_string(i) + "\"}\n";
    testing::write_text(folder_ / "text" / "a.jsonl", rows);
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

// Asks for an interrupt late in a text of 4,000 documents, as a signal would. With one worker no more than four chunks
// of 64 are read ahead, so that shards are finished by then.
class InterruptingTokenizer : public ByteTokenizer {
 public:
  using ByteTokenizer::encode;
  void encode(std::string_view text, std::vector<TokenId>& ids) const override {
    if (text == "document number 3500") std::raise(SIGINT);
    ByteTokenizer::encode(text, ids);
  }
};

TEST_F(PrepareTest, AnInterruptKeepsWholeShardsAndTheRerunIsTheSame) {
  write_corpus(4000);
  prepare("whole");
  const auto whole = contents("whole");
  install_interrupt_handlers();
  options_.workers = 1;
  const PrepareResult part = prepare("again", InterruptingTokenizer());
  EXPECT_TRUE(part.interrupted);
  EXPECT_LT(part.train_documents, 3800u);
  ASSERT_FALSE(part.shards.empty());
  EXPECT_FALSE(fs::exists(folder_ / "again" / "manifest.json"));
  for (const auto& [name, bytes] : contents("again")) {
    if (name == "preparing.json") continue;
    EXPECT_EQ(bytes, whole.at(name)) << name;
  }
  reset_interrupt_for_testing();
  options_.workers = 0;
  EXPECT_THAT([&] { prepare("again"); }, ThrowsMessage<ConfigError>(HasSubstr("--resume to continue it")));
  testing::write_text(folder_ / "again" / ".train-00003.tok.tmp-1-1", "left by a kill");
  testing::write_text(folder_ / "again" / ".preparing.json.tmp-1-2", "left by a kill");
  testing::write_text(folder_ / "again" / "train-00004.tok", "finished, but a kill came before preparing.json said so");
  options_.resume = true;
  EXPECT_FALSE(prepare("again").interrupted);
  EXPECT_EQ(contents("again"), whole);
}

// Counts what is tokenized.
class CountingTokenizer : public ByteTokenizer {
 public:
  using ByteTokenizer::encode;
  void encode(std::string_view text, std::vector<TokenId>& ids) const override {
    ++encoded;
    ByteTokenizer::encode(text, ids);
  }
  mutable std::atomic<int> encoded = 0;
};

TEST_F(PrepareTest, ResumingKeepsFinishedShardsAtEveryPoint) {
  prepare("whole");
  const auto whole = contents("whole");
  const auto manifest = nlohmann::json::parse(whole.at("manifest.json"));
  options_.resume = true;
  for (std::size_t train = 0; train <= 4; ++train) {
    for (std::size_t validation = 0; validation <= 1; ++validation) {
      auto state = manifest;
      state.erase("train");
      state.erase("validation");
      state["shards"] = nlohmann::json::array();
      const fs::path output = folder_ / "part";
      fs::remove_all(output);
      fs::create_directory(output);
      std::size_t documents = 0;
      for (const auto& row : manifest["shards"]) {
        const std::size_t finished = row["split"] == "train" ? train : validation;
        std::size_t before = 0;
        for (const auto& kept : state["shards"]) before += kept["split"] == row["split"] ? 1 : 0;
        if (before == finished) continue;
        state["shards"].push_back(row);
        documents += row["documents"].get<std::size_t>();
        fs::copy_file(folder_ / "whole" / row["file"].get<std::string>(), output / row["file"].get<std::string>());
      }
      testing::write_text(output / "preparing.json", state.dump());
      const CountingTokenizer tokenizer;
      prepare("part", tokenizer);
      EXPECT_EQ(static_cast<std::size_t>(tokenizer.encoded), 1000 - documents);
      EXPECT_EQ(contents("part"), whole) << train << " training, " << validation << " validation shards";
    }
  }
  const CountingTokenizer tokenizer;
  EXPECT_EQ(prepare("part", tokenizer).train_documents, 950u);
  EXPECT_EQ(tokenizer.encoded, 0) << "all was there";
}

TEST_F(PrepareTest, ResumingMakesDamagedShardsAgain) {
  prepare("whole");
  const auto whole = contents("whole");
  options_.resume = true;
  for (const char* name : {"train-00001.tok", "validation-00000.tok"}) {
    prepare("part");
    std::string bytes = whole.at(name);
    bytes[bytes.size() / 2] ^= 1;
    testing::write_text(folder_ / "part" / name, bytes);
    prepare("part");
    EXPECT_EQ(contents("part"), whole) << name;
    fs::remove(folder_ / "part" / name);
    prepare("part");
    EXPECT_EQ(contents("part"), whole) << name;
  }
}

TEST_F(PrepareTest, ResumingOtherTextOrOptionsIsRefusedByName) {
  prepare("out");
  fs::rename(folder_ / "out" / "manifest.json", folder_ / "out" / "preparing.json");
  const auto before = contents("out");
  options_.resume = true;
  const auto error = [](const std::string& message) { return ThrowsMessage<ConfigError>(HasSubstr(message)); };
  options_.tokens_per_shard = 6000;
  EXPECT_THAT([&] { prepare("out"); }, error("options.tokens_per_shard was 5000 and is 6000"));
  options_.tokens_per_shard = 5000;
  const std::string text = read_file(folder_ / "text" / "a.jsonl");
  testing::write_text(folder_ / "text" / "a.jsonl", text + "{\"text\":\"more\"}\n");
  EXPECT_THAT([&] { prepare("out"); }, error("inputs.0.bytes was " + std::to_string(text.size()) + " and is "));
  std::string changed = text;
  changed.replace(changed.find("number 3\""), 8, "number 4");
  testing::write_text(folder_ / "text" / "a.jsonl", changed);
  fs::remove(folder_ / "out" / "train-00003.tok");  // something is left to do
  EXPECT_THAT([&] { prepare("out"); }, ThrowsMessage<DataError>(HasSubstr("is not the one that train-00000.tok was made of")));
  testing::write_text(folder_ / "text" / "a.jsonl", text);
  testing::write_text(folder_ / "out" / "preparing.json", "{\"inputs\"");
  EXPECT_THAT([&] { prepare("out"); }, ThrowsMessage<DataError>(HasSubstr("preparing.json: is damaged")));
  fs::remove(folder_ / "out" / "preparing.json");
  EXPECT_THAT([&] { prepare("out"); }, error("token shards of unknown origin"));
  for (const char* name : {"train-00000.tok", "train-00001.tok", "train-00002.tok"}) {
    EXPECT_EQ(read_file(folder_ / "out" / name), before.at(name)) << "nothing may be touched";
  }
}

TEST_F(PrepareTest, AnotherPreparationIsReplacedOnlyWhenAsked) {
  prepare("out");
  const auto before = contents("out");
  options_.tokens_per_shard = 100'000;
  const auto error = [](const std::string& message) { return ThrowsMessage<ConfigError>(HasSubstr(message)); };
  EXPECT_THAT([&] { prepare("out"); }, error("already holds prepared data of other text or options"));
  EXPECT_EQ(contents("out"), before);
  fs::rename(folder_ / "out" / "manifest.json", folder_ / "out" / "preparing.json");
  EXPECT_THAT([&] { prepare("out"); }, error("an unfinished preparation of other text or options"));
  options_.overwrite = true;
  const PrepareResult result = prepare("out");
  EXPECT_EQ(result.shards.size(), 2u);
  EXPECT_EQ(contents("out").size(), 4u);
}

TEST_F(PrepareTest, FiltersAreReportedAndResumeAtEveryPoint) {
  std::string rows;
  for (int i = 0; i < 1000; ++i) rows += "{\"text\":\"document number " + std::to_string(i % 700) + "\"}\n";
  testing::write_text(folder_ / "text" / "a.jsonl", rows + "{\"text\":\"x\"}\n");
  options_.filters.min_bytes = 5;
  options_.filters.drop_duplicates = true;
  options_.workers = 1;
  const PrepareResult result = prepare("whole");
  EXPECT_EQ(result.train_documents + result.validation_documents, 700u);
  EXPECT_EQ(result.filtered.kept_documents, 700u);
  const auto whole = contents("whole");
  const auto report = nlohmann::json::parse(whole.at("filters.json"));
  EXPECT_EQ(report["documents"], 1001);
  EXPECT_EQ(report["dropped"][0]["documents"], 1);
  EXPECT_EQ(report["dropped"][1]["documents"], 300);
  const auto manifest = nlohmann::json::parse(whole.at("manifest.json"));
  EXPECT_EQ(manifest["options"]["filters"]["drop_duplicates"], true);
  options_.workers = 3;
  options_.resume = true;
  for (std::size_t kept = 0; kept <= manifest["shards"].size(); ++kept) {
    fs::remove_all(folder_ / "part");
    fs::create_directory(folder_ / "part");
    auto state = manifest;
    state["shards"] = nlohmann::json::array();
    for (std::size_t i = 0; i < kept; ++i) {
      const auto& row = manifest["shards"][i];
      state["shards"].push_back(row);
      fs::copy_file(folder_ / "whole" / row["file"].get<std::string>(), folder_ / "part" / row["file"].get<std::string>());
    }
    testing::write_text(folder_ / "part" / "preparing.json", state.dump());
    prepare("part");
    EXPECT_EQ(contents("part"), whole) << kept;
  }
  options_.filters.min_bytes = 6;
  EXPECT_THAT([&] { prepare("part"); }, ThrowsMessage<ConfigError>(HasSubstr("options.filters.min_bytes was 5 and is 6")));
  options_.filters.min_bytes = 1000;
  EXPECT_THAT([&] { prepare("none"); }, ThrowsMessage<DataError>(HasSubstr("none of 1001 documents passes the filters")));
  EXPECT_FALSE(fs::exists(folder_ / "none"));
}

TEST_F(PrepareTest, MixesSourcesAndResumesAMixture) {
  std::string rows;
  for (int i = 0; i < 1000; ++i) rows += "{\"text\":\"other text, number " + std::to_string(i) + "\"}\n";
  testing::write_text(folder_ / "other.jsonl", rows);
  const std::vector<std::string> paths = {(folder_ / "text").string(), (folder_ / "other.jsonl").string()};
  options_.mixture.weights = {3, 1};
  const auto mixed = [&](const char* output) {
    return prepare_shards(paths, ByteTokenizer(), folder_ / output, options_, progress_);
  };
  const PrepareResult result = mixed("whole");
  ASSERT_GT(result.shards.size(), 3u);
  EXPECT_NEAR(static_cast<double>(result.text_bytes), 4.0 / 3.0 * 18'890, 100);  // all of the first source, a third as much
  options_.resume = true;
  fs::copy(folder_ / "whole", folder_ / "part");
  fs::rename(folder_ / "part" / "manifest.json", folder_ / "part" / "preparing.json");
  fs::remove(folder_ / "part" / "train-00001.tok");
  mixed("part");
  EXPECT_EQ(contents("part"), contents("whole"));
  options_.mixture.weights = {1, 1};
  EXPECT_THAT([&] { mixed("whole"); }, ThrowsMessage<ConfigError>(HasSubstr("mixture")));
  options_.mixture.weights = {1};
  EXPECT_THAT([&] { mixed("new"); }, ThrowsMessage<ConfigError>(HasSubstr("1 weights for 2 sources")));
  EXPECT_FALSE(fs::exists(folder_ / "new"));
}

TEST_F(PrepareTest, AFolderThatAnotherOneWritesToIsRefused) {
  {
    const FolderLock lock(folder_ / "out", "data prepare");
    for (const bool overwrite : {false, true}) {
      options_.overwrite = overwrite;
      EXPECT_THAT([&] { prepare("out"); }, ThrowsMessage<ConfigError>(HasSubstr("another process is writing to this folder")));
    }
    EXPECT_EQ(contents("out").size(), 1U) << "the lock alone";
  }
  options_.overwrite = false;
  EXPECT_EQ(prepare("out").train_documents, 950u);
  EXPECT_FALSE(contents("out").contains(FolderLock::kFileName));
}

// Two processes into one folder at the same moment, many times: one of them writes it, whole; the other is refused, or comes
// after it and is refused because the data is there.
TEST_F(PrepareTest, OfTwoAtOnceOneWritesTheFolder) {
  prepare("expected");
  const auto expected = contents("expected");
  for (int round = 0; round < 10; ++round) {
    const std::string out = "out" + std::to_string(round);
    std::vector<pid_t> children;
    for (int i = 0; i < 2; ++i) {
      const pid_t child = ::fork();
      if (child == 0) {
        int code = 0;
        try {
          options_.workers = 1;
          prepare(out);
        } catch (const ConfigError&) {
          code = 2;
        } catch (const std::exception&) {
          code = 1;
        }
        ::_exit(code);
      }
      children.push_back(child);
    }
    std::multiset<int> codes;
    for (const pid_t child : children) {
      int status = 0;
      ::waitpid(child, &status, 0);
      codes.insert(WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    }
    EXPECT_EQ(codes, (std::multiset<int>{0, 2}));
    EXPECT_EQ(contents(out), expected);
  }
}

class NamelessTokenizer : public ByteTokenizer {
 public:
  const std::vector<std::string>& special_tokens() const override {
    static const std::vector<std::string> names = {"<|begin_of_text|>"};
    return names;
  }
};

TEST_F(PrepareTest, ATokenizerWithoutATokenThatBeginsADocumentIsRefused) {
  NamelessTokenizer tokenizer;
  EXPECT_THAT([&] { prepare("out", tokenizer); },
              ThrowsMessage<TokenizerError>(HasSubstr("name the special token that begins a document with --bos-token; it has "
                                                      "<|begin_of_text|>")));
  EXPECT_FALSE(fs::exists(folder_ / "out"));
  tokenizer.set_bos_token("<|begin_of_text|>");
  EXPECT_EQ(prepare("out", tokenizer).train_documents, 950u);
}

TEST_F(PrepareTest, RowsThatArePassedOverMakeNoDifferenceToTheRest) {
  prepare("expected");
  std::string rows;
  for (int i = 0; i < 1000; ++i) {
    rows += "{\"text\":\"document number " + std::to_string(i) + "\"}\n";
    if (i % 100 == 7) rows += "{\"text\": broken\n";
  }
  testing::write_text(folder_ / "text" / "a.jsonl", rows);
  options_.reader.bad_rows = std::make_shared<BadRows>(9);
  EXPECT_THAT([&] { prepare("out"); }, ThrowsMessage<DataError>(HasSubstr("--skip-bad allows 9 bad rows")));
  // Going on with more of them is the same preparation.
  options_.reader.bad_rows = std::make_shared<BadRows>(BadRows::kAll);
  options_.resume = true;
  prepare("out");
  EXPECT_EQ(options_.reader.bad_rows->count(), 10u);
  auto expected = contents("expected"), found = contents("out");
  const auto manifest = nlohmann::json::parse(found.at("manifest.json"));
  EXPECT_EQ(manifest["skipped_rows"]["rows"], 10);
  EXPECT_EQ(manifest["skipped_rows"]["examples"].size(), BadRows::kShown);
  EXPECT_FALSE(nlohmann::json::parse(expected.at("manifest.json")).contains("skipped_rows"));
  expected.erase("manifest.json");
  found.erase("manifest.json");
  EXPECT_EQ(found, expected);
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

TEST_F(PrepareTest, AFailureBeforeTheFirstShardDoesNotBlockTheCorrectedText) {
  const std::string good = read_file(folder_ / "text" / "a.jsonl");
  prepare("whole");
  testing::write_text(folder_ / "text" / "a.jsonl", "{\"text\":\"first\"}\n{\"text\":\n");
  EXPECT_THAT([&] { prepare("out"); }, ThrowsMessage<DataError>(HasSubstr("a.jsonl:2")));
  testing::write_text(folder_ / "text" / "a.jsonl", good);
  prepare("out");
  EXPECT_EQ(contents("out"), contents("whole"));
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
