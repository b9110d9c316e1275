#include "data/checks/validate.h"

#include <sys/stat.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <set>
#include <thread>

#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/progress.h"
#include "core/sha256.h"
#include "core/testing.h"
#include "data/rows/testing_gzip.h"
#include "data/shards/prepare.h"
#include "data/shards/shard.h"
#include "data/shards/testing_tokenizer.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::Pair;

class Validate : public ::testing::Test {
 protected:
  fs::path write(const std::string& name, const std::string& content) const {
    std::ofstream(folder_ / name, std::ios::binary) << content;
    return folder_ / name;
  }
  ValidationReport validate(const fs::path& path, const ValidateOptions& options = {}) const {
    SilentProgress progress;
    ValidationReport report = validate_data({path.string()}, options, progress);
    for (const auto& example : report.examples) {
      EXPECT_EQ(example.what.find(folder_.path().string()), std::string::npos)
          << "the file is named twice: " << example.where << ": " << example.what;
    }
    return report;
  }
  // The only kind of fault found, once.
  std::string only_fault(const fs::path& path, const ValidateOptions& options = {}) const {
    const ValidationReport report = validate(path, options);
    if (report.counts.size() != 1) return report.to_json().dump();
    EXPECT_EQ(report.counts.begin()->second, 1U) << report.to_json();
    EXPECT_EQ(report.examples.size(), 1U);
    return report.counts.begin()->first;
  }
  std::string fault_of_rows(const std::string& rows) const { return only_fault(write("rows.jsonl", rows)); }
  // A folder of shards: 40 documents, every fifth for validation, three shards.
  fs::path prepared() const {
    std::string rows;
    for (int i = 0; i < 40; ++i) rows += json{{"text", "document " + std::to_string(i) + " of the corpus"}}.dump() + "\n";
    PrepareOptions options;
    options.validation_every = 5;
    options.tokens_per_shard = 500;
    SilentProgress progress;
    fs::remove_all(folder_ / "shards");
    prepare_shards({write("corpus.jsonl", rows)}, testing::ByteTokenizer(), folder_ / "shards", options, progress);
    fs::remove(folder_ / "shards/tokenizer.json");  // that of the tests' tokenizer is none
    return folder_ / "shards";
  }
  static void change(const fs::path& file, std::size_t at) {
    std::string bytes = read_file(file);
    bytes[at] = static_cast<char>(bytes[at] ^ 1);
    std::ofstream(file, std::ios::binary) << bytes;
  }
  static void edit_manifest(const fs::path& shards, const std::function<void(json&)>& edit) {
    json manifest = json::parse(read_file(shards / "manifest.json"));
    edit(manifest);
    std::ofstream(shards / "manifest.json") << manifest.dump();
  }

  testing::TemporaryDirectory folder_;
};

constexpr const char* kGood = R"({"text": "a good row"})"
                              "\n";

std::string conversation(const std::string& messages) { return R"({"messages": [)" + messages + "]}\n"; }
constexpr const char* kUser = R"({"role": "user", "content": "hello"})";
constexpr const char* kAssistant = R"({"role": "assistant", "content": "hi"})";

TEST_F(Validate, CleanDataHasNoFaults) {
  EXPECT_TRUE(validate(write("a.txt", "A paragraph.\n\nAnother one, with a tab\tand \xC3\xA9.\n")).clean());
  const ValidationReport rows = validate(write("b.jsonl", std::string(kGood) + "\n" +
                                                              R"({"text": "another"})"
                                                              "\n"));
  EXPECT_TRUE(rows.clean());
  EXPECT_EQ(rows.documents, 2U);
  EXPECT_TRUE(validate(write("c.jsonl.gz", testing::gzip(kGood))).clean());
  const std::string parts = R"({"role": "assistant", "content": [{"type": "text", "text": "it is "},)"
                            R"({"type": "python", "text": "1+1"}, {"type": "python_output", "text": "2"}]})";
  const ValidationReport chat = validate(
      write("d.jsonl", conversation(R"({"role": "system", "content": "be brief"},)" + std::string(kUser) + "," + kAssistant) +
                           conversation(std::string(kUser) + "," + parts)));
  EXPECT_TRUE(chat.clean()) << chat.to_json();
  EXPECT_EQ(chat.conversations, 2U);
  EXPECT_TRUE(validate(write("e.jsonl", "[" + std::string(kUser) + "," + kAssistant + "]\n")).clean());
  const ValidationReport shards = validate(prepared());
  EXPECT_TRUE(shards.clean()) << shards.to_json();
  EXPECT_EQ(shards.documents, 40U);
  EXPECT_GT(shards.tokens, 0U);
  EXPECT_EQ(shards.to_json()["clean"], true);
}

TEST_F(Validate, FindsFaultsOfText) {
  EXPECT_EQ(only_fault(write("a.txt.gz", "no gzip at all")), "unreadable");
  EXPECT_EQ(only_fault(write("b.txt.gz", testing::gzip("some text that is cut off\n").substr(0, 25))), "unreadable");
  EXPECT_EQ(only_fault(write("c.txt", "good\n\nbad \xFF\n")), "invalid-utf8");
  EXPECT_EQ(fault_of_rows(std::string(kGood) + "{\"text\": \"\xC3(\"}\n"), "invalid-utf8");
  EXPECT_EQ(fault_of_rows(std::string(kGood) + R"({"text": "a\u0000b"})"
                                               "\n"),
            "control-character");
  EXPECT_EQ(fault_of_rows(std::string(kGood) + R"({"text": "caf\ufffd"})"
                                               "\n"),
            "replacement-character");
  EXPECT_EQ(fault_of_rows(std::string(kGood) + "{\"text\": \"cut"), "malformed-json");
  EXPECT_EQ(fault_of_rows(std::string(kGood) + R"({"body": "x"})"
                                               "\n"),
            "missing-text");
  EXPECT_EQ(fault_of_rows(std::string(kGood) + R"({"text": 7})"
                                               "\n"),
            "wrong-type");
  EXPECT_EQ(fault_of_rows(std::string(kGood) + R"({"text": " \n"})"
                                               "\n"),
            "empty-document");
  EXPECT_EQ(fault_of_rows(std::string(kGood) + kGood), "duplicate-document");
  EXPECT_EQ(fault_of_rows("\n\n"), "no-documents");
  ValidateOptions options;
  options.max_document_bytes = 5;
  EXPECT_EQ(only_fault(write("d.jsonl", kGood), options), "oversized-document");
  options = {};
  options.text_column = "body";
  EXPECT_EQ(only_fault(write("e.jsonl", kGood), options), "missing-text");
}

// What `data prepare` reads is no fault, and what it refuses is one.
TEST_F(Validate, ReadsTextAsPreparingDoes) {
  EXPECT_TRUE(validate(write("a.NDJSON", kGood)).clean());
  EXPECT_TRUE(validate(write("b.jsonl", R"({"text": "a", "x": 1e999})"
                                        "\n"))
                  .clean());
  EXPECT_EQ(only_fault(write("c.jsonl", R"({"text": "\ud800 lone"})"
                                        "\n")),
            "replacement-character")
      << "read, and told";
  fs::create_directory(folder_ / "toy");
  write("toy/corpus.jsonl", kGood);
  write("toy/prompts.jsonl", R"({"prompt": "The moon is"})"
                             "\n");
  write("toy/chat.jsonl", conversation(std::string(kUser) + "," + kAssistant));
  const ValidationReport report = validate(folder_ / "toy");
  EXPECT_TRUE(report.clean()) << report.to_json();
  EXPECT_EQ(report.files, 2U) << "the prompts are neither text nor conversations";
  EXPECT_EQ(report.conversations, 1U);
  EXPECT_EQ(only_fault(folder_ / "toy/prompts.jsonl"), "missing-text") << "named outright";
}

TEST_F(Validate, ReadsPipesMoreThanOnce) {
  ASSERT_EQ(::mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  const std::jthread writer([path = folder_ / "pipe"] { std::ofstream(path) << "A paragraph.\n\nAnother.\n"; });
  const ValidationReport report = validate(folder_ / "pipe");
  EXPECT_TRUE(report.clean()) << report.to_json();
  EXPECT_EQ(report.documents, 1U);
}

TEST_F(Validate, NestsNoDeeperThanItCanWalk) {
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  EXPECT_EQ(fault_of_rows(std::string(kGood) + R"({"messages": )" + deep + "}\n"), "malformed-json");
}

TEST_F(Validate, AgreesWithPreparingAboutTheColumn) {
  NANOCHAT_SHARED_OR_SKIP(file, "cases/id_first.parquet");
  const ValidationReport report = validate(file);
  EXPECT_EQ(report.counts, (std::map<std::string, std::uint64_t>{{"missing-text", 1}})) << "once, not for every row";
  EXPECT_THAT(report.examples[0].what, ::testing::HasSubstr("--text-column"));
  EXPECT_THAT(report.examples[0].what, ::testing::StartsWith("no column \"text\"")) << "the file is named beside it";
  ValidateOptions options;
  options.text_column = "article";
  EXPECT_TRUE(validate(file, options).clean()) << validate(file, options).to_json();
  EXPECT_GT(validate(file, options).documents, 0U);
}

TEST_F(Validate, FindsFaultsOfConversations) {
  const std::string good = conversation(std::string(kUser) + "," + kAssistant);
  EXPECT_EQ(fault_of_rows(good + conversation("")), "no-messages");
  EXPECT_EQ(fault_of_rows(good + conversation(R"({"role": "system", "content": "x"})")), "no-messages");
  EXPECT_EQ(fault_of_rows(good + conversation(std::string(kAssistant) + "," + kUser)), "wrong-role");
  EXPECT_EQ(fault_of_rows(good + conversation(R"({"role": "narrator", "content": "x"})")), "wrong-role");
  EXPECT_EQ(fault_of_rows(good + conversation(R"({"content": "x"})")), "wrong-role");
  EXPECT_EQ(fault_of_rows(good + conversation(R"({"role": "user", "content": 5},)" + std::string(kAssistant))),
            "wrong-content");
  EXPECT_EQ(fault_of_rows(good + conversation(R"({"role": "user", "content": [{"type": "python", "text": "x"}]},)" +
                                              std::string(kAssistant))),
            "wrong-part");
  EXPECT_EQ(fault_of_rows(good + conversation(R"({"role": "user", "content": ""},)" + std::string(kAssistant))),
            "empty-content");
  EXPECT_EQ(fault_of_rows(good + conversation(R"({"role": "user"},)" + std::string(kAssistant))), "empty-content");
  EXPECT_EQ(fault_of_rows(good +
                          conversation(std::string(kUser) + R"(,{"role": "assistant", "content": [{"type": "image"}]})")),
            "wrong-part");
  EXPECT_EQ(fault_of_rows(good + conversation(std::string(kUser) + R"(,{"role": "assistant", "content": [{"type": "text"}]})")),
            "wrong-part");
  EXPECT_EQ(fault_of_rows(good + conversation(kUser)), "unanswered");
  EXPECT_EQ(fault_of_rows(good + R"({"conversations": [)" + kUser + "," + kAssistant + "]}\n"), "other-form")
      << "training refuses such a row";
  EXPECT_EQ(fault_of_rows(good + conversation(std::string(kUser) + R"(,{"role": "assistant", "content": "x", "weight": 0})")),
            "nothing-learned");
  EXPECT_EQ(fault_of_rows(good + conversation(std::string(kUser) + R"(,{"role": "assistant", "content": "x", "weight": 0.5})")),
            "wrong-weight");
  EXPECT_EQ(fault_of_rows(good +
                          conversation(std::string(kUser) + R"(,{"role": "assistant", "tool_calls": [{"function": {}}]})")),
            "wrong-call");
  EXPECT_EQ(fault_of_rows(good + R"({"image": "a.png", "messages": [)" + kUser + "," + kAssistant + "]}\n"), "unsupported-key");
  EXPECT_EQ(fault_of_rows(good + good), "duplicate-document");
  const std::string alpaca = R"({"instruction": "a", "output": "b"})";
  EXPECT_TRUE(validate(write("a.json", "[" + alpaca + "]")).clean());
  EXPECT_EQ(only_fault(write("b.json", "[" + alpaca +
                                           ",\n"
                                           R"({"instruction": "a", "output": ""}])")),
            "empty-content");
  EXPECT_EQ(only_fault(write("c.json", "[" + alpaca)), "unreadable");
}

TEST_F(Validate, CountsTheKeysOfConversationsThatNothingReads) {
  const ValidationReport report = validate(write("a.jsonl", R"({"id": 7, "tools": "", "messages": [)" + std::string(kUser) +
                                                                "," + kAssistant + "]}\n"));
  EXPECT_TRUE(report.clean()) << report.to_json();
  EXPECT_THAT(report.unread, ElementsAre(Pair("id", 1U)));
  EXPECT_EQ(report.to_json()["unread_keys"].dump(), R"({"id":1})");
}

TEST_F(Validate, FindsFaultsOfShards) {
  fs::path shards = prepared();
  fs::remove(shards / "train-00001.tok");
  EXPECT_EQ(only_fault(shards), "missing-shard");

  shards = prepared();
  fs::copy(shards / "train-00000.tok", shards / "train-00007.tok");
  ValidationReport report = validate(shards);
  EXPECT_EQ(report.counts["unlisted-shard"], 1U);
  EXPECT_EQ(report.counts.size(), 2U) << "and its documents are duplicates";

  shards = prepared();
  change(shards / "train-00000.tok", 140);  // a token
  report = validate(shards);
  EXPECT_EQ(report.counts["checksum-mismatch"], 1U);
  EXPECT_EQ(report.counts["damaged-shard"], 1U);
  EXPECT_EQ(report.counts["hash-mismatch"], 1U);
  EXPECT_EQ(report.counts.size(), 3U) << report.to_json();

  shards = prepared();
  fs::resize_file(shards / "train-00000.tok", fs::file_size(shards / "train-00000.tok") - 4);
  report = validate(shards);
  EXPECT_EQ(report.counts["damaged-shard"], 1U);

  shards = prepared();
  edit_manifest(shards, [](json& manifest) { manifest["shards"][0]["documents"] = 3; });
  EXPECT_EQ(only_fault(shards), "count-mismatch");
  edit_manifest(shards, [](json& manifest) { manifest = {{"shards", 7}}; });
  EXPECT_EQ(only_fault(shards), "damaged-manifest");
  for (const json& row : {json(1), json({{"file", 7}}), json({{"file", "train-00000.tok"}, {"documents", "many"}})}) {
    edit_manifest(shards, [&](json& manifest) { manifest = {{"shards", json::array({row})}}; });
    EXPECT_EQ(validate(shards).counts["damaged-manifest"], 1U) << row;
  }

  shards = prepared();
  write("shards/preparing.json", "{}");
  EXPECT_EQ(only_fault(shards), "unfinished");
}

TEST_F(Validate, FindsOverlapOfTheSplitsAndOtherTokenizers) {
  const std::string fingerprint = sha256_hex("one"), other = sha256_hex("other");
  const auto shard = [&](const std::string& name, const std::string& tokenizer,
                         std::vector<std::vector<std::int32_t>> documents) {
    ShardWriter writer(folder_ / name, 100, tokenizer);
    for (const auto& document : documents) writer.add(document, document.size());
    writer.finish();
  };
  shard("train-00000.tok", fingerprint, {{1, 2, 3}, {4, 5}});
  shard("validation-00000.tok", fingerprint, {{6}, {1, 2, 3}});
  EXPECT_EQ(only_fault(folder_.path()), "split-overlap");
  shard("validation-00000.tok", fingerprint, {{6}, {}});
  EXPECT_EQ(only_fault(folder_.path()), "empty-document");
  shard("validation-00000.tok", fingerprint, {});
  EXPECT_EQ(only_fault(folder_.path()), "no-documents");
  shard("validation-00000.tok", other, {{6}});
  EXPECT_EQ(only_fault(folder_.path()), "wrong-tokenizer");
  const testing::ByteTokenizer tokenizer;
  ValidateOptions options;
  options.tokenizer = &tokenizer;
  EXPECT_EQ(validate(folder_ / "train-00000.tok", options).counts["wrong-tokenizer"], 1U);
}

TEST_F(Validate, CountsAllAndShowsAFew) {
  std::string rows;
  for (int i = 0; i < 20; ++i) rows += "broken\n";
  ValidateOptions options;
  options.max_examples = 3;
  const ValidationReport report = validate(write("rows.jsonl", rows), options);
  EXPECT_THAT(report.counts, ElementsAre(Pair("malformed-json", 20U)));
  EXPECT_EQ(report.examples.size(), 3U);
  EXPECT_EQ(report.examples[1].where, (folder_ / "rows.jsonl").string() + ":2");
  EXPECT_EQ(report.to_json()["findings"]["malformed-json"], 20);
  EXPECT_THROW(validate(folder_ / "nowhere.jsonl"), DataError);
}

TEST_F(Validate, EveryKindIsExplainedOnce) {
  std::set<std::string> names;
  for (const auto& [kind, meaning] : finding_kinds()) {
    EXPECT_TRUE(names.insert(kind).second) << kind;
    EXPECT_FALSE(meaning.empty());
  }
  EXPECT_GE(names.size(), 20U);
}

}  // namespace
}  // namespace nanochat
