#include "data/rows/paths.h"

#include <sys/stat.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/errors.h"
#include "core/testing.h"

namespace nanochat {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

class Paths : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(folder_ / "sub");
    std::filesystem::create_directories(folder_ / ".hidden");
    std::filesystem::create_directories(folder_ / "none");
    for (const char* name : {"b.txt", "a.txt", "sub/c.jsonl", "notes.md", ".hidden/x.txt", ".y.txt"}) {
      testing::write_text(folder_ / name, "text");
    }
    testing::write_text(folder_ / "zero.txt", "");
  }
  std::vector<std::string> expand(const std::vector<std::string>& paths) const {
    std::vector<std::string> names;
    for (const auto& path : expand_paths(paths, {FileFormat::kText, FileFormat::kJsonLines}, "text")) {
      names.push_back(std::filesystem::relative(path, folder_.path()).string());
    }
    return names;
  }
  std::string at(const std::string& name) const { return (folder_ / name).string(); }

  testing::TemporaryDirectory folder_;
};

TEST_F(Paths, FolderIsEveryKnownFileBelowItSorted) {
  EXPECT_THAT(expand({folder_.path().string()}), ElementsAre("a.txt", "b.txt", "sub/c.jsonl", "zero.txt"));
}

TEST_F(Paths, KeepsTheOrderGivenAndTakesAFileOnce) {
  EXPECT_THAT(expand({at("sub/c.jsonl"), at("b.txt"), at("*.txt"), at("sub/../b.txt")}),
              ElementsAre("sub/c.jsonl", "b.txt", "a.txt", "zero.txt"));
}

TEST_F(Paths, GlobMatchesFilesAndFolders) { EXPECT_THAT(expand({at("[as]*")}), ElementsAre("a.txt", "sub/c.jsonl")); }

TEST_F(Paths, NamesWhatIsWrong) {
  const auto error = [](const std::string& text) { return ThrowsMessage<DataError>(HasSubstr(text)); };
  EXPECT_THAT([&] { expand({at("missing.txt")}); }, error("missing.txt: no such file or folder"));
  EXPECT_THAT([&] { expand({at("zero.txt")}); }, error("zero.txt: the file is empty"));
  EXPECT_THAT([&] { expand({at("notes.md")}); },
              error("unknown extension for text; known are .txt, .jsonl (.ndjson, .jsonlines); also .gz and .zst"));
  EXPECT_THAT([&] { expand({at("none")}); }, error("none holds no text file"));
  EXPECT_THAT([&] { expand({at("*.parquet")}); }, error("*.parquet matches no text file"));
  EXPECT_THAT([&] { expand({"/dev/null"}); }, error("neither a file nor a folder"));
  EXPECT_THAT([&] { expand({}); }, error("no text given"));
}

TEST_F(Paths, SaysWhichFilesNobodyNamed) {
  for (const FoundFile& file : find_files({folder_.path().string()}, {FileFormat::kText}, "text")) EXPECT_TRUE(file.in_folder);
  for (const FoundFile& file : find_files({at("a.txt"), at("[b]*")}, {FileFormat::kText}, "text")) EXPECT_FALSE(file.in_folder);
}

TEST_F(Paths, TakesPipesWhereTheyCanBeRead) {
  ASSERT_EQ(::mkfifo(at("pipe").c_str(), 0600), 0);
  EXPECT_EQ(expand_paths({at("pipe"), "-"}, {FileFormat::kText}, "text", /*streams=*/true).size(), 2U);
  EXPECT_THAT([&] { expand({at("pipe")}); }, ThrowsMessage<DataError>(HasSubstr("pipe: text cannot be read from a pipe")));
  EXPECT_THAT([&] { expand_paths({"/dev/fd/999"}, {FileFormat::kText}, "text", true); },
              ThrowsMessage<DataError>(HasSubstr("/dev/fd/999: no such file")));
}

TEST(NamesShards, LooksAtTheNameAndIntoTheFolder) {
  const testing::TemporaryDirectory folder;
  EXPECT_TRUE(names_shards("shards/train-*.tok"));
  EXPECT_FALSE(names_shards("text.jsonl"));
  EXPECT_FALSE(names_shards(folder.path().string()));
  testing::write_text(folder / "train-00000.tok", "");
  EXPECT_TRUE(names_shards(folder.path().string()));
}

}  // namespace
}  // namespace nanochat
