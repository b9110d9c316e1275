#include "evaluation/completion.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/errors.h"
#include "core/progress.h"
#include "core/testing.h"
#include "evaluation/testing_bytes.h"
#include "model/gpt.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(BeginsWithAnswer, TakesWholeWordsAfterWhiteSpace) {
  EXPECT_TRUE(begins_with_answer(" Paris.", "Paris"));
  EXPECT_TRUE(begins_with_answer("\n Paris", "Paris"));
  EXPECT_TRUE(begins_with_answer(" New York is", "New York"));
  EXPECT_FALSE(begins_with_answer(" Parisian", "Paris"));
  EXPECT_FALSE(begins_with_answer(" The Paris", "Paris"));
  EXPECT_FALSE(begins_with_answer(" 17", "1"));
  EXPECT_FALSE(begins_with_answer("", "Paris"));
  EXPECT_TRUE(begins_with_answer(" c, a, t.", "c, a, t."));
}

TEST(ReadCompletionItems, ReadsRowsAndNamesBadLines) {
  const testing::TemporaryDirectory folder;
  testing::write_text(
      folder / "good.jsonl",
      "{\"prompt\":\"a\",\"answers\":[\"b\",\"c\"],\"topic\":\"t\"}\n\n{\"prompt\":\"d\",\"answers\":[\"e\"]}\n");
  const auto items = read_completion_items(folder / "good.jsonl");
  ASSERT_EQ(items.size(), 2U);
  EXPECT_EQ(items[0].answers, (std::vector<std::string>{"b", "c"}));
  EXPECT_EQ(items[0].topic, "t");
  EXPECT_EQ(items[1].prompt, "d");

  testing::write_text(folder / "bad.jsonl", "{\"prompt\":\"a\",\"answers\":[\"b\"]}\n{\"prompt\":3}\n");
  EXPECT_THAT([&] { read_completion_items(folder / "bad.jsonl"); }, ThrowsMessage<DataError>(HasSubstr("bad.jsonl:2")));
  testing::write_text(folder / "empty.jsonl", "\n");
  EXPECT_THAT([&] { read_completion_items(folder / "empty.jsonl"); }, ThrowsMessage<DataError>(HasSubstr("no rows")));
  testing::write_text(folder / "none.jsonl", "{\"prompt\":\"a\",\"answers\":[]}\n");
  EXPECT_THAT([&] { read_completion_items(folder / "none.jsonl"); }, ThrowsMessage<DataError>(HasSubstr("answers")));
  EXPECT_THROW(read_completion_items(folder / "missing.jsonl"), DataError);
}

TEST(EvaluateCompletions, CountsByTopicWhatTheModelContinues) {
  // An untrained model has zero logits everywhere: greedy decoding yields token 0, a NUL byte, for every prompt.
  GptConfig config = GptConfig::from_depth(1, 257, 64);
  Gpt model(config, at::kFloat);
  model.init_weights(1);
  const testing::ByteTokenizer tokenizer;
  const std::vector<CompletionItem> items = {
      {"one", {std::string(3, '\0')}, "nul"}, {"two", {"x"}, "letters"}, {"three", {"y", std::string(1, '\0')}, "nul"}};
  SilentProgress progress;
  const CompletionResult result = evaluate_completions(model, tokenizer, items, 2, progress);
  EXPECT_EQ(result.all.correct, 2);
  EXPECT_EQ(result.all.total, 3);
  EXPECT_EQ(result.by_topic.at("nul").correct, 2);
  EXPECT_DOUBLE_EQ(result.by_topic.at("letters").accuracy(), 0.0);
  EXPECT_EQ(result.correct, (std::vector<bool>{true, false, true}));
  ASSERT_EQ(result.continuations.size(), 3U);
}

}  // namespace
}  // namespace nanochat
