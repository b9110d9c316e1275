#include "tasks/row_tasks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/errors.h"
#include "core/testing.h"

namespace nanochat {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
namespace fs = std::filesystem;
using Parts = std::vector<MessagePart>;

TEST(CalculatorParts, AreTextCallsAndOutputs) {
  EXPECT_EQ(
      calculator_parts("4*2 = <<4*2=8>>8."),
      (Parts{
          {PartType::kText, "4*2 = "}, {PartType::kPython, "4*2"}, {PartType::kPythonOutput, "8"}, {PartType::kText, "8."}}));
  EXPECT_EQ(calculator_parts("<<1=2=3>><<a>>"), (Parts{{PartType::kPython, "1=2"},
                                                       {PartType::kPythonOutput, "3"},
                                                       {PartType::kPython, "a"},
                                                       {PartType::kPythonOutput, ""}}));
  EXPECT_EQ(calculator_parts("plain"), (Parts{{PartType::kText, "plain"}}));
  EXPECT_EQ(calculator_parts("1 < 2 <<>> <<a>b>> 3"), (Parts{{PartType::kText, "1 < 2 <<>> <<a>b>> 3"}}));
  EXPECT_EQ(calculator_parts("<<open"), (Parts{{PartType::kText, "<<open"}}));
  EXPECT_EQ(calculator_parts("<<<x=1>>"), (Parts{{PartType::kPython, "<x"}, {PartType::kPythonOutput, "1"}}));
  EXPECT_EQ(calculator_parts(""), Parts{});
}

TEST(RowTasks, Gsm8k) {
  const TaskExample example = gsm8k_example({{"question", "How much?"}, {"answer", "It is <<1+1=2>>2.\n#### 2,000"}});
  EXPECT_EQ(example.conversation.messages[0], Message("user", "How much?"));
  EXPECT_EQ(example.conversation.messages[1].parts.size(), 4U);
  EXPECT_EQ(example.rule, AnswerRule::kFinalNumber);
  EXPECT_THAT(example.answers, ElementsAre("2000"));
  EXPECT_THAT(
      [] {
        gsm8k_example({{"question", "a"}, {"answer", "b"}});
      },
      ThrowsMessage<DataError>(HasSubstr("no number behind")));
  EXPECT_THAT([] { gsm8k_example({{"answer", "#### 1"}}); }, ThrowsMessage<DataError>("the row has no \"question\""));
  EXPECT_THAT([] { gsm8k_example(json::array()); }, ThrowsMessage<DataError>(HasSubstr("found JSON array")));
  EXPECT_THAT(
      [] {
        gsm8k_example({{"question", 3}, {"answer", "#### 1"}});
      },
      ThrowsMessage<DataError>(HasSubstr("\"question\" is JSON number")));
}

TEST(RowTasks, Mmlu) {
  const json row = {{"question", "Why?"}, {"choices", {"a", "b", "c", "d"}}, {"answer", 2}, {"subject", "logic"}};
  const TaskExample example = mmlu_example(row);
  EXPECT_EQ(
      example.conversation.messages[0].joined_text(),
      "Multiple Choice question: Why?\n- a=A\n- b=B\n- c=C\n- d=D\n\nRespond only with the letter of the correct answer.");
  EXPECT_EQ(example.conversation.messages[1].joined_text(), "C");
  EXPECT_THAT(example.letters, ElementsAre("A", "B", "C", "D"));
  EXPECT_EQ(example.group, "logic");
  EXPECT_EQ(mmlu_example({{"train", row}}).conversation, example.conversation);
  json bad = row;
  bad["answer"] = 4;
  EXPECT_THAT([&] { mmlu_example(bad); }, ThrowsMessage<DataError>(HasSubstr("\"answer\" is 4")));
  bad = row;
  bad["choices"] = {"a", "b"};
  EXPECT_THAT([&] { mmlu_example(bad); }, ThrowsMessage<DataError>(HasSubstr("2 entries")));
}

TEST(RowTasks, Arc) {
  const json row = {
      {"question", "Why?"}, {"choices", {{"text", {"a", "b", "c"}}, {"label", {"1", "2", "3"}}}}, {"answerKey", "2"}};
  const TaskExample example = arc_example(row);
  EXPECT_THAT(example.conversation.messages[0].joined_text(), HasSubstr("- a=1\n- b=2\n- c=3\n"));
  EXPECT_EQ(example.rule, AnswerRule::kLetter);
  EXPECT_THAT(example.answers, ElementsAre("2"));
  json bad = row;
  bad["answerKey"] = "B";
  EXPECT_THAT([&] { arc_example(bad); }, ThrowsMessage<DataError>(HasSubstr("none of the labels")));
  bad["choices"]["label"] = {"1"};
  EXPECT_THAT([&] { arc_example(bad); }, ThrowsMessage<DataError>(HasSubstr("as many labels")));
}

TEST(RowTasks, HumanEval) {
  const TaskExample example = humaneval_example(
      {{"prompt", "def f():"}, {"canonical_solution", "  return 1"}, {"test", "def check(f): pass"}, {"entry_point", "f"}});
  EXPECT_EQ(example.conversation.messages[1].joined_text(), "def f():\n  return 1");
  EXPECT_EQ(example.rule, AnswerRule::kProgram);
  EXPECT_EQ(example.test, "def check(f): pass");
  EXPECT_EQ(example.entry_point, "f");
}

TEST(RowTasks, NameFileAndLineOfABadRowOrSkipIt) {
  const testing::TemporaryDirectory folder;
  testing::write_text(folder / "a.jsonl", "{\"question\": \"a\", \"answer\": \"#### 1\"}\n{}\n");
  EXPECT_THAT([&] { load_row_task(RowTask::kGsm8k, "gsm8k", {folder / "a.jsonl"}); },
              ThrowsMessage<DataError>(HasSubstr("a.jsonl:2: the row has no")));
  const auto task = load_row_task(RowTask::kGsm8k, "gsm8k", {folder / "a.jsonl"}, /*skip_bad=*/true);
  EXPECT_EQ(task->size(), 1);
  EXPECT_EQ(task->name(), "gsm8k");
  EXPECT_THROW(task->example(1), std::out_of_range);
  testing::write_text(folder / "b.jsonl", "{}\n");
  EXPECT_THAT([&] { load_row_task(RowTask::kGsm8k, "gsm8k", {folder / "b.jsonl"}, true); },
              ThrowsMessage<DataError>(HasSubstr("no example of gsm8k")));
  EXPECT_THROW(load_row_task(RowTask::kConversations, "mine", {folder / "a.jsonl"}), DataError);
}

TEST(RowTasks, OfRealFiles) {
  NANOCHAT_SHARED_OR_SKIP(data, "data");
  const auto size = [&](RowTask kind, const char* file) { return load_row_task(kind, "task", {data / file})->size(); };
  EXPECT_EQ(size(RowTask::kGsm8k, "gsm8k/train.jsonl.gz"), 7473);
  EXPECT_EQ(size(RowTask::kGsm8k, "gsm8k/test.jsonl"), 1319);
  EXPECT_EQ(size(RowTask::kMmlu, "mmlu/test.jsonl.gz"), 14042);
  EXPECT_EQ(size(RowTask::kArc, "arc/ARC-Challenge-test.jsonl"), 1172);
  EXPECT_EQ(size(RowTask::kHumanEval, "humaneval/HumanEval.jsonl.gz"), 164);
  EXPECT_EQ(size(RowTask::kConversations, "chat/conversations_mix.jsonl.gz"), 7786);
}

}  // namespace
}  // namespace nanochat
