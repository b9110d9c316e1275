#include "evaluation/core_bundle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/errors.h"
#include "core/testing.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

class CoreBundle : public ::testing::Test {
 protected:
  CoreBundle() {
    write("core.yaml",
          "icl_tasks:\n- label: mc\n  dataset_uri: a/mc.jsonl\n  num_fewshot: [1]\n"
          "  icl_task_type: multiple_choice\n- label: lm\n  dataset_uri: lm.jsonl\n  num_fewshot: [0]\n"
          "  icl_task_type: language_modeling\n  continuation_delimiter: \"\\n\"\n");
    write("eval_meta_data.csv", "Eval Task,x,Random baseline\nmc,\"a,b\",25\nlm,,0\n");
    write("eval_data/a/mc.jsonl",
          "{\"query\":\"q\",\"choices\":[\"a\",\"b\"],\"gold\":1}\n\n"
          "{\"query\":\"r\",\"choices\":[\"c\",\"d\"],\"gold\":0}\n");
  }
  void write(const std::string& name, const std::string& text) {
    std::filesystem::create_directories((folder_ / name).parent_path());
    testing::write_text(folder_ / name, text);
  }
  void expect_error(const std::string& rows, const std::string& part) {
    write("eval_data/a/mc.jsonl", rows);
    EXPECT_THAT([&] { read_core_rows(read_core_bundle(folder_.path()).front()); }, ThrowsMessage<DataError>(HasSubstr(part)));
  }
  testing::TemporaryDirectory folder_;
};

TEST_F(CoreBundle, ReadsTasksAndRows) {
  const auto tasks = read_core_bundle(folder_.path());
  ASSERT_EQ(tasks.size(), 2U);
  EXPECT_EQ(tasks[0].num_fewshot, 1);
  EXPECT_EQ(tasks[0].continuation_delimiter, " ");
  EXPECT_DOUBLE_EQ(*tasks[0].random_baseline, 0.25);
  EXPECT_EQ(tasks[1].type, CoreTaskType::kLanguageModeling);
  EXPECT_EQ(tasks[1].continuation_delimiter, "\n");
  const auto rows = read_core_rows(tasks[0]);
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0].context, "q");
  EXPECT_EQ(rows[0].options, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(rows[0].gold, 1U);
  EXPECT_THAT([&] { read_core_rows(tasks[1]); }, ThrowsMessage<DataError>(HasSubstr("--task-file lm=PATH")));
}

TEST_F(CoreBundle, TakesAnotherFileForATask) {
  write("mine.jsonl", "{\"context\":\"c\",\"continuation\":\"d\"}\n");
  const auto tasks = read_core_bundle(folder_.path(), {{"lm", folder_ / "mine.jsonl"}});
  EXPECT_TRUE(tasks[1].replaced);
  EXPECT_FALSE(tasks[0].replaced);
  EXPECT_EQ(read_core_rows(tasks[1]).front().continuation, "d");
  EXPECT_THAT(
      [&] {
        read_core_bundle(folder_.path(), {{"lmm", "x"}});
      },
      ThrowsMessage<ConfigError>(HasSubstr("did you mean \"lm\"?")));
}

TEST_F(CoreBundle, NamesBadRows) {
  expect_error("{\"query\":\"q\",\"choices\":[\"a\"]}\n", "mc.jsonl:1: the row has no \"gold\"");
  expect_error("\n{\"query\":\"q\",\"choices\":[\"a\",\"b\"],\"gold\":2}\n", "mc.jsonl:2: \"gold\" is 2");
  expect_error("{\"query\":\"q\",\"choices\":[\"a\",\"b\"],\"gold\":-1}\n", "0 to 1");
  expect_error("{\"query\":\"q\",\"choices\":[\"a\",\"b\"],\"gold\":\"a\"}\n", "\"gold\" is \"a\"");
  expect_error("{\"query\":1,\"choices\":[\"a\"],\"gold\":0}\n", "\"query\" is number");
  expect_error("{\"query\":\"q\",\"choices\":[],\"gold\":0}\n", "\"choices\" is empty");
  expect_error("{\"query\":\"q\",\"choices\":[3],\"gold\":0}\n", "must hold strings");
  expect_error("[1]\n", "found [1], expected a JSON object");
  expect_error("{\"query\":\"q\",\"choices\":[\"a\"],\"gold\":0}\n", "has 1 rows");
}

TEST_F(CoreBundle, NamesWhatIsWrongWithTheBundle) {
  EXPECT_THAT([&] { read_core_bundle(folder_ / "none"); }, ThrowsMessage<DataError>(HasSubstr("no such folder")));
  write("core.yaml", "icl_tasks:\n- label: mc\n");
  EXPECT_THAT([&] { read_core_bundle(folder_.path()); }, ThrowsMessage<DataError>(HasSubstr("core.yaml:2: the task has no")));
  write("core.yaml", "icl_tasks:\n- label: mc\n  dataset_uri: x\n  num_fewshot: ten\n  icl_task_type: schema\n");
  EXPECT_THAT([&] { read_core_bundle(folder_.path()); }, ThrowsMessage<DataError>(HasSubstr("num_fewshot is \"ten\"")));
  write("core.yaml", "icl_tasks:\n- label: mc\n  dataset_uri: x\n  num_fewshot: [1]\n  icl_task_type: odd\n");
  EXPECT_THAT([&] { read_core_bundle(folder_.path()); }, ThrowsMessage<DataError>(HasSubstr("icl_task_type is \"odd\"")));
  write("core.yaml", "icl_tasks:\n- label: other\n  dataset_uri: x\n  num_fewshot: [1]\n  icl_task_type: schema\n");
  EXPECT_FALSE(read_core_bundle(folder_.path()).front().random_baseline) << "found out when the task is asked";
  write("eval_meta_data.csv", "Eval Task\n");
  EXPECT_THAT([&] { read_core_bundle(folder_.path()); }, ThrowsMessage<DataError>(HasSubstr("Random baseline")));
}

TEST(CoreRows, AreShuffledAsByPython) {
  // x = list(range(8)); random.Random(1337).shuffle(x)
  std::vector<CoreRow> rows(8);
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i].gold = i;
  shuffle_core_rows(rows, 5);
  std::vector<std::size_t> order;
  for (const CoreRow& row : rows) order.push_back(row.gold);
  EXPECT_EQ(order, (std::vector<std::size_t>{0, 3, 7, 2, 1}));
}

TEST(CoreBundleOfTheReference, HasTwentyTwoTasks) {
  NANOCHAT_SHARED_OR_SKIP(folder, "data/core");
  const auto tasks = read_core_bundle(folder);
  ASSERT_EQ(tasks.size(), 22U);
  std::size_t missing = 0;
  for (const CoreTask& task : tasks) {
    ASSERT_TRUE(task.random_baseline) << task.label;
    if (!std::filesystem::exists(task.file)) ++missing;
  }
  EXPECT_EQ(missing, 1U) << "squad alone";
  EXPECT_EQ(read_core_rows(tasks[1]).size(), 2117U) << "compressed";
}

}  // namespace
}  // namespace nanochat
