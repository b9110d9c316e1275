#include "evaluation/core_prompts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include "core/errors.h"
#include "core/sha256.h"
#include "core/testing.h"
#include "evaluation/testing_bytes.h"
#include "tokenizer/load.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(PythonStrip, TakesTheSpacesOfUnicode) {
  EXPECT_EQ(python_strip(" \t\n\v\f\r\x1c x y \xC2\xA0\xE3\x80\x80\xE2\x80\x83"), "x y");
  EXPECT_EQ(python_strip("\xE2\x80\x8Bx"), "\xE2\x80\x8Bx") << "a zero-width space is none";
  EXPECT_EQ(python_strip(" \xC2\x85"), "");
}

TEST(CoreFewshot, DrawsAsPythonDoes) {
  // random.Random(1234 + 2).sample([i for i in range(9) if i != 2], 4)
  EXPECT_EQ(core_fewshot_rows(9, 2, 4), (std::vector<std::size_t>{8, 6, 7, 4}));
  EXPECT_TRUE(core_fewshot_rows(1, 0, 0).empty());
  EXPECT_THROW(core_fewshot_rows(4, 0, 4), DataError);
}

CoreTask task_of(CoreTaskType type, std::int64_t shots = 0) {
  CoreTask task;
  task.label = "t";
  task.type = type;
  task.num_fewshot = shots;
  return task;
}

TEST(CorePrompts, SpansWhereOptionsDiffer) {
  const testing::ByteTokenizer tokenizer;
  const std::vector<CoreRow> rows = {{"q", {"ab", "ac", "a"}, "", 0}};
  const CorePrompts prompts = core_prompts(tokenizer, task_of(CoreTaskType::kMultipleChoice), rows, 0, 100);
  ASSERT_EQ(prompts.options.size(), 3U);
  EXPECT_EQ(prompts.options[0].tokens, (std::vector<TokenId>{256, 'q', ' ', 'a', 'b'}));
  for (const PromptSpan& option : prompts.options) EXPECT_EQ(option.start, 4);
  EXPECT_EQ(prompts.options[1].end, 5);
  EXPECT_EQ(prompts.options[2].end, 4) << "adds nothing";
}

TEST(CorePrompts, SpansTheCommonEndOfASchema) {
  const testing::ByteTokenizer tokenizer;
  const std::vector<CoreRow> rows = {{"", {"xyz", "w"}, "end", 0}};
  const CorePrompts prompts = core_prompts(tokenizer, task_of(CoreTaskType::kSchema), rows, 0, 100);
  EXPECT_EQ(prompts.options[0].start, 4);
  EXPECT_EQ(prompts.options[0].end, 8);
  EXPECT_EQ(prompts.options[1].start, 2);
  EXPECT_EQ(prompts.options[1].end, 6);
  const std::vector<CoreRow> same = {{"", {"x", "x"}, "e", 0}};
  EXPECT_EQ(core_prompts(tokenizer, task_of(CoreTaskType::kSchema), same, 0, 100).options[0].start, 1);
}

TEST(CorePrompts, SpansAContinuationAndShowsExamples) {
  const testing::ByteTokenizer tokenizer;
  const std::vector<CoreRow> rows = {{" a ", {}, "b", 0}, {"c\n", {}, "d", 0}};
  const CoreTask task = task_of(CoreTaskType::kLanguageModeling, 1);
  EXPECT_EQ(core_prompt_texts(task, rows, 0), (std::vector<std::string>{"c d\n\na", "c d\n\na b"}));
  const CorePrompts prompts = core_prompts(tokenizer, task, rows, 0, 100);
  ASSERT_EQ(prompts.options.size(), 1U);
  EXPECT_EQ(prompts.options[0].start, 7);
  EXPECT_EQ(prompts.options[0].end, 9);
  EXPECT_FALSE(prompts.boundary_moved);
  const std::vector<CoreRow> empty = {{"a", {}, "", 0}};
  CoreTask bare = task_of(CoreTaskType::kLanguageModeling);
  bare.continuation_delimiter = "";
  EXPECT_THAT([&] { core_prompts(tokenizer, bare, empty, 0, 100); }, ThrowsMessage<DataError>(HasSubstr("no tokens")));
}

TEST(CorePrompts, AreCutOnTheLeft) {
  const testing::ByteTokenizer tokenizer;
  const std::vector<CoreRow> rows = {{"0123456789", {"ab", "cde"}, "", 0}};
  const CorePrompts prompts = core_prompts(tokenizer, task_of(CoreTaskType::kMultipleChoice), rows, 0, 5);
  EXPECT_TRUE(prompts.truncated);
  EXPECT_EQ(prompts.options[0].tokens, (std::vector<TokenId>{'8', '9', ' ', 'a', 'b'}));
  EXPECT_EQ(prompts.options[0].start, 3);
  EXPECT_EQ(prompts.options[1].start, 2);
  EXPECT_EQ(prompts.options[1].end, 5);
  EXPECT_EQ(core_prompts(tokenizer, task_of(CoreTaskType::kMultipleChoice), rows, 0, 2).options[1].start, 1);
}

TEST(CorePrompts, AreTheReferencesToTheToken) {
  NANOCHAT_SHARED_OR_SKIP(goldens, "parity/goldens/core_prompts.jsonl");
  NANOCHAT_SHARED_OR_SKIP(bundle, "data/core");
  NANOCHAT_SHARED_OR_SKIP(tokenizer_folder, "data/tokenizers/nanochat_ms");
  const auto tokenizer = load_tokenizer(tokenizer_folder);
  std::map<std::string, CoreTask> tasks;
  std::map<std::string, std::vector<CoreRow>> rows;
  for (CoreTask& task : read_core_bundle(bundle)) {
    // The rows of the slice lie under the names that the tasks have in the bundle.
    const auto uri = std::filesystem::relative(task.file, bundle / "eval_data");
    task.file = bundle / "slice" / (uri.extension() == ".gz" ? uri.parent_path() / uri.stem() : uri);
    rows[task.label] = read_core_rows(task);
    tasks[task.label] = task;
  }
  std::ifstream stream(goldens);
  std::int64_t checked = 0, sequences = 0;
  for (std::string line; std::getline(stream, line); ++checked) {
    const nlohmann::json golden = nlohmann::json::parse(line);
    const std::string label = golden.at("task");
    const std::size_t index = golden.at("index");
    const CorePrompts prompts = core_prompts(*tokenizer, tasks.at(label), rows.at(label), index, 1 << 20);
    const std::vector<std::string> texts = core_prompt_texts(tasks.at(label), rows.at(label), index);
    if (golden.at("prompt0").is_string()) {
      EXPECT_EQ(texts.front(), golden.at("prompt0").get<std::string>()) << line;
    }
    ASSERT_EQ(prompts.options.size(), golden.at("lengths").size()) << line;
    EXPECT_FALSE(prompts.boundary_moved);
    for (std::size_t i = 0; i < prompts.options.size(); ++i, ++sequences) {
      const PromptSpan& option = prompts.options[i];
      EXPECT_EQ(option.tokens.size(), golden["lengths"][i].get<std::size_t>());
      EXPECT_EQ(option.start, golden["start"][i].get<std::int64_t>());
      EXPECT_EQ(option.end, golden["end"][i].get<std::int64_t>());
      EXPECT_EQ(sha256_hex(fmt::format("{}", fmt::join(option.tokens, ","))), golden["sha256"][i].get<std::string>())
          << label << " " << index;
    }
  }
  std::printf("%ld prompts of %zu tasks, %ld sequences\n", static_cast<long>(checked), tasks.size(),
              static_cast<long>(sequences));
  EXPECT_GT(checked, 40);
}

}  // namespace
}  // namespace nanochat
