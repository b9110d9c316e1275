#include "download/dataset_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/errors.h"
#include "core/testing.h"

namespace nanochat {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string error_of(const std::string& text) {
  DatasetTable table;
  try {
    table.merge_text(text, "sets.json");
  } catch (const ConfigError& error) {
    EXPECT_TRUE(table.all().empty());
    return error.what();
  }
  return "no error";
}

std::vector<std::string> paths_of(const std::vector<RemoteFile>& files) {
  std::vector<std::string> paths;
  for (const RemoteFile& file : files) paths.push_back(file.path.string());
  return paths;
}

TEST(DatasetTableTest, BuiltInSetsAreThoseOfTheReference) {
  const DatasetTable table = DatasetTable::built_in();
  std::vector<std::string> names;
  for (const Dataset& set : table.all()) {
    names.push_back(set.name);
    EXPECT_FALSE(set.description.empty()) << set.name;
    EXPECT_FALSE(set.licence.empty()) << set.name;
    for (const RemoteFile& file : set.files) EXPECT_TRUE(file.url.starts_with("https://")) << file.url;
  }
  EXPECT_THAT(names, ElementsAre("arc", "climbmix", "core", "fineweb-edu", "gsm8k", "humaneval", "identity", "mmlu", "smoltalk",
                                 "words"));
  const Dataset& fineweb = table.find("fineweb-edu");
  ASSERT_EQ(fineweb.files.size(), 1823u);
  EXPECT_EQ(fineweb.files.back().url,
            "https://huggingface.co/datasets/karpathy/fineweb-edu-100b-shuffle/resolve/main/"
            "shard_01822.parquet");
  EXPECT_EQ(fineweb.files.back().path, "shard_01822.parquet");
  EXPECT_EQ(table.find("core").files[0].path, "eval_bundle.zip");
  EXPECT_EQ(table.find("smoltalk").files.size(), 5u);
}

TEST(DatasetTableTest, TablesOfUsersExtendAndReplace) {
  const testing::TemporaryDirectory folder;
  const std::string digest(64, 'A');
  testing::write_text(folder / "mine.json", R"({
    // a comment
    "mine": {"licence": "own", "files": [
      {"url": "http://host/x{index:03d}.txt", "first": 7, "count": 2, "path": "sub/{index}.txt", "bytes": [10, null],
       "sha256": [null, ")" + digest + R"("]},
      {"url": "http://host/last.txt?key=1", "bytes": 5}]},
    "words": {"files": [{"url": "http://host/words.txt"}]}})");
  DatasetTable table = DatasetTable::built_in();
  const std::size_t before = table.all().size();
  table.merge_file(folder / "mine.json");
  EXPECT_EQ(table.all().size(), before + 1);
  EXPECT_EQ(table.find("words").files[0].url, "http://host/words.txt");
  const Dataset& mine = table.find("mine");
  EXPECT_THAT(paths_of(mine.files), ElementsAre("sub/7.txt", "sub/8.txt", "last.txt"));
  EXPECT_EQ(mine.files[0].url, "http://host/x007.txt");
  EXPECT_EQ(mine.files[0].bytes, 10u);
  EXPECT_EQ(mine.files[0].sha256, "");
  EXPECT_EQ(mine.files[1].bytes, std::nullopt);
  EXPECT_EQ(mine.files[1].sha256, std::string(64, 'a'));
  EXPECT_EQ(mine.files[2].bytes, 5u);
}

TEST(DatasetTableTest, MistakesAreNamedWithTheirPlace) {
  EXPECT_THAT(error_of("{"), HasSubstr("sets.json: not JSON"));
  EXPECT_THAT(error_of("[]"), HasSubstr("expected an object with a key for each set"));
  EXPECT_THAT(error_of(R"({"a": {}})"), HasSubstr("sets.json: \"a\": has no \"files\""));
  EXPECT_THAT(error_of(R"({"a": {"file": []}})"), HasSubstr("unknown key \"file\", did you mean \"files\"?"));
  EXPECT_THAT(error_of(R"({"../a": {"files": []}})"), HasSubstr("the name \"../a\""));
  const auto entry = [](const std::string& text) { return error_of(R"({"a": {"files": [{)" + text + "}]}}"); };
  EXPECT_THAT(entry(R"("count": 2)"), HasSubstr("files[0]: has no \"url\""));
  EXPECT_THAT(entry(R"("url": "ftp://host/x")"), HasSubstr("expected http://HOST/... or https://HOST/..."));
  EXPECT_THAT(entry(R"("url": "file:///etc/passwd")"), HasSubstr("expected http://HOST/..."));
  EXPECT_THAT(entry(R"("url": "http:///x")"), HasSubstr("host after"));
  EXPECT_THAT(entry(R"("url": "http://h/a b")"), HasSubstr("no spaces"));
  EXPECT_THAT(entry(R"("url": "http://h/{index:5d}")"), HasSubstr("expected {index} or {index:05d}"));
  EXPECT_THAT(entry(R"("url": "http://h/{shard}")"), HasSubstr("found {shard}"));
  EXPECT_THAT(entry(R"("url": "http://h/{index")"), HasSubstr("found {index,"));
  EXPECT_THAT(entry(R"("url": "http://h/")"), HasSubstr("expected a relative path to a file"));
  EXPECT_THAT(entry(R"("url": "http://h/x", "path": "../x")"), HasSubstr("without \"..\""));
  EXPECT_THAT(entry(R"("url": "http://h/x", "path": "/etc/x")"), HasSubstr("expected a relative path"));
  EXPECT_THAT(entry(R"("url": "http://h/x", "count": 2)"), HasSubstr("two files go to x"));
  EXPECT_THAT(entry(R"("url": "http://h/x{index}", "count": 2, "bytes": 3)"), HasSubstr("a list of 2"));
  EXPECT_THAT(entry(R"("url": "http://h/x{index}", "count": 2, "bytes": [3])"), HasSubstr("found a list of 1"));
  EXPECT_THAT(entry(R"("url": "http://h/x", "bytes": -3)"), HasSubstr("\"bytes\": found -3"));
  EXPECT_THAT(entry(R"("url": "http://h/x", "sha256": "abc")"), HasSubstr("64 hexadecimal digits"));
  EXPECT_THAT(entry(R"("url": "http://h/x{index}", "count": 2000000)"), HasSubstr("1 to 1,000,000"));
  EXPECT_THAT(entry(R"("url": 3)"), HasSubstr("\"url\": found 3, expected text"));
  EXPECT_THROW(DatasetTable().merge_file("absent.json"), ConfigError);
  try {
    DatasetTable::built_in().find("smalltalk");
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("did you mean \"smoltalk\"?"));
  }
}

TEST(DatasetTableTest, PartsOfASet) {
  DatasetTable table;
  table.merge_text(R"({"a": {"files": [{"url": "http://h/{index}", "count": 10}]}})", "sets.json");
  const Dataset& set = table.find("a");
  EXPECT_EQ(select_files(set, "", 0).size(), 10u);
  EXPECT_THAT(paths_of(select_files(set, "", 2)), ElementsAre("0", "1"));
  EXPECT_THAT(paths_of(select_files(set, "3-5,9,4", 0)), ElementsAre("3", "4", "5", "9"));
  EXPECT_THAT(paths_of(select_files(set, "3-5", 2)), ElementsAre("3", "4"));
  EXPECT_EQ(select_files(set, "", 99).size(), 10u);
  for (const char* wrong : {"10", "5-3", "x", "1-", "1,", "1;2", "-1", "99999999999999999999"}) {
    EXPECT_THROW(select_files(set, wrong, 0), ConfigError) << wrong;
  }
}

TEST(RemoteFileTest, MirrorsReplaceSchemeAndHost) {
  EXPECT_EQ(with_mirror("https://host/a/b?c=1", "http://127.0.0.1:8000"), "http://127.0.0.1:8000/a/b?c=1");
  EXPECT_EQ(with_mirror("https://host/a", "http://m/hf/"), "http://m/hf/a");
  EXPECT_EQ(with_mirror("https://host/a", ""), "https://host/a");
}

TEST(RemoteFileTest, SecretsAreNotShown) {
  EXPECT_EQ(shown_url("https://user:pass@host/a?token=secret#x"), "https://host/a");
  EXPECT_EQ(shown_url("http://host:80/a@b"), "http://host:80/a@b");
}

TEST(RemoteFileTest, FileNames) {
  EXPECT_EQ(file_name_of("http://h/a/b.txt?x=/y"), "b.txt");
  EXPECT_EQ(file_name_of("http://h"), "");
  EXPECT_TRUE(is_safe_path("a/b.txt"));
  for (const char* wrong : {"", "/a", "../a", "a/../b", "a/", "./a"}) EXPECT_FALSE(is_safe_path(wrong)) << wrong;
}

}  // namespace
}  // namespace nanochat
