#include "evaluation/internal/core_yaml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/errors.h"
#include "core/testing.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

class YamlList : public ::testing::Test {
 protected:
  std::vector<YamlEntry> read(const std::string& text) {
    testing::write_text(folder_ / "list.yaml", text);
    return read_yaml_list(folder_ / "list.yaml", "tasks");
  }
  testing::TemporaryDirectory folder_;
};

TEST_F(YamlList, ReadsBothFormsOfAnEntryWithQuotesAndComments) {
  const auto entries = read(
      "# c\ntasks:\n-\n  label: a b # why\n  delimiter: \"\\nAnswer: \"\n- label: 'it''s'\n  shots: [10]\n\n");
  ASSERT_EQ(entries.size(), 2U);
  EXPECT_EQ(entries[0].line, 3U);
  EXPECT_EQ(entries[0].values.at("label"), "a b");
  EXPECT_EQ(entries[0].values.at("delimiter"), "\nAnswer: ");
  EXPECT_EQ(entries[1].values.at("label"), "it's");
  EXPECT_EQ(entries[1].values.at("shots"), "[10]");
}

TEST_F(YamlList, ReadsAMarkAndWindowsLineEnds) {
  const auto entries = read("\xEF\xBB\xBFtasks:\r\n- label: a\r\n  shots: [1]\r\n");
  ASSERT_EQ(entries.size(), 1U);
  EXPECT_EQ(entries[0].values.at("label"), "a");
  EXPECT_EQ(entries[0].values.at("shots"), "[1]");
}

TEST_F(YamlList, NamesTheLineOfWhatItDoesNotRead) {
  const auto message = [&](const std::string& text, const std::string& part) {
    EXPECT_THAT([&] { read(text); }, ThrowsMessage<DataError>(HasSubstr(part))) << text;
  };
  message("other:\n", "list.yaml:1: found \"other:\", expected \"tasks:\"");
  message("tasks:\n", "no entries");
  message("tasks:\n  label: a\n", "list.yaml:2");
  message("tasks:\n- label: a\nlabel: b\n", "list.yaml:3: found \"label: b\", expected an indented");
  message("tasks:\n- label\n", "list.yaml:2: found \"label\", expected \"key: value\"");
  message("tasks:\n- a: 1\n  a: 2\n", "given twice");
  message("tasks:\n- a: \"x\n", "quoted");
  message("tasks:\n- a: \"x\" y\n", "quoted");
  message("tasks:\n- a: \"\\q\"\n", "escape");
  EXPECT_THROW(read_yaml_list(folder_ / "missing", "tasks"), DataError);
}

TEST(Csv, ReadsQuotedFields) {
  const testing::TemporaryDirectory folder;
  testing::write_text(folder / "t.csv",
                      "\xEF\xBB\xBF"
                      "a,b\r\n\"1,\"\"2\"\"\n3\",4\n5,6");
  EXPECT_EQ(read_csv(folder / "t.csv"), (std::vector<std::vector<std::string>>{{"a", "b"}, {"1,\"2\"\n3", "4"}, {"5", "6"}}));
  testing::write_text(folder / "open.csv", "a,\"b\n");
  EXPECT_THAT([&] { read_csv(folder / "open.csv"); }, ThrowsMessage<DataError>(HasSubstr("does not end")));
}

}  // namespace
}  // namespace nanochat
