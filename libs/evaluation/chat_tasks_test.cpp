#include "evaluation/chat_tasks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/errors.h"
#include "core/testing.h"
#include "evaluation/published_core.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(ChatBenchmarks, AreThoseOfTheReference) {
  NANOCHAT_SHARED_OR_SKIP(data, "data");
  const std::map<std::string, std::int64_t> sizes = {
      {"arc-easy", 2376}, {"arc-challenge", 1172}, {"mmlu", 14042}, {"gsm8k", 1319}, {"humaneval", 164}};
  for (const auto& [name, size] : sizes) {
    const auto task = open_chat_task(name, data / (name.starts_with("arc") ? "arc" : name));
    EXPECT_EQ(task->size(), size) << name;
    EXPECT_EQ(task->name(), name);
  }
  // numpy.random.default_rng(42).permutation(164) begins with 52.
  EXPECT_EQ(open_chat_task("humaneval", data / "humaneval")->example(0).entry_point, "below_threshold");
}

TEST(ChatBenchmarks, OpenTheToyWorldAndWords) {
  for (const std::string& name : chat_task_names()) {
    if (is_toy_task(name)) {
      EXPECT_GT(open_chat_task(name, "")->size(), 100) << name;
    }
  }
  const testing::TemporaryDirectory folder;
  testing::write_text(folder / "words.txt", "moon\nsun\n");
  EXPECT_EQ(open_chat_task("spelling-bee", folder / "words.txt")->size(), 256);
  EXPECT_THROW(open_chat_task("arc", ""), ConfigError);
}

TEST(PublishedCore, HasTheMeanOfItsTasks) {
  ASSERT_EQ(published_core().size(), 4U);
  for (const PublishedCore& row : published_core()) EXPECT_EQ(row.accuracy.size(), 22U);
  EXPECT_DOUBLE_EQ(published_core()[0].accuracy.at("copa"), 0.6);
}

TEST(FillTemplate, PutsValuesIn) {
  const nlohmann::json row = {{"a", "x"}, {"n", 3}, {"l", {1}}};
  EXPECT_EQ(fill_template("Q: {a}, {n} {{a}}", row), "Q: x, 3 {a}");
  EXPECT_THAT([&] { fill_template("{b}", row); }, ThrowsMessage<DataError>(HasSubstr("\"b\"")));
  EXPECT_THAT([&] { fill_template("{l}", row); }, ThrowsMessage<DataError>(HasSubstr("\"l\"")));
  EXPECT_THROW(fill_template("{a", row), ConfigError);
}

class Custom : public ::testing::Test {
 protected:
  CustomTask load(const nlohmann::json& description, const std::string& rows) {
    testing::write_text(folder_ / "task.json", description.dump());
    testing::write_text(folder_ / "rows.jsonl", rows);
    return load_custom_task(folder_ / "task.json");
  }
  testing::TemporaryDirectory folder_;
};

TEST_F(Custom, MakesTasksOfEachForm) {
  const CustomTask choice = load({{"name", "c"},
                                  {"form", "multiple_choice"},
                                  {"data", "rows.jsonl"},
                                  {"query", "{q}:"},
                                  {"choices", "options"},
                                  {"gold", "label"},
                                  {"random_baseline", 0.5}},
                                 "{\"q\":\"2+2\",\"options\":[\"3\",\"4\"],\"label\":1}\n");
  EXPECT_EQ(choice.base.type, CoreTaskType::kMultipleChoice);
  EXPECT_EQ(choice.rows.at(0).context, "2+2:");
  EXPECT_EQ(choice.rows[0].gold, 1U);
  EXPECT_DOUBLE_EQ(*choice.base.random_baseline, 0.5);
  const CustomTask schema = load(
      {{"name", "s"}, {"form", "schema"}, {"data", "rows.jsonl"}, {"contexts", "c"}, {"continuation", "{e}"}, {"gold", "g"}},
      "{\"c\":[\"a\",\"b\"],\"e\":\"z\",\"g\":0}\n");
  EXPECT_EQ(schema.rows.at(0).options.size(), 2U);
  const CustomTask model = load(
      {{"name", "l"}, {"form", "language_modeling"}, {"data", "rows.jsonl"}, {"context", "{a}"}, {"continuation", "{b}"}},
      "{\"a\":\"x\",\"b\":7}\n");
  EXPECT_EQ(model.rows.at(0).continuation, "7");
  const CustomTask letter = load({{"name", "k"},
                                  {"form", "categorical"},
                                  {"data", "rows.jsonl"},
                                  {"prompt", "{q}"},
                                  {"choices", "o"},
                                  {"gold", "g"},
                                  {"group", "t"}},
                                 "{\"q\":\"Which?\",\"o\":[\"x\",\"y\"],\"g\":1,\"t\":\"topic\"}\n");
  const TaskExample example = letter.chat->example(0);
  EXPECT_EQ(example.letters, (std::vector<std::string>{"A", "B"}));
  EXPECT_EQ(example.answers, (std::vector<std::string>{"B"}));
  EXPECT_EQ(example.group, "topic");
  EXPECT_THAT(example.conversation.messages[0].joined_text(), HasSubstr("- y=B"));
  const CustomTask written = load({{"name", "w"},
                                   {"form", "generative"},
                                   {"data", "rows.jsonl"},
                                   {"prompt", "{q}"},
                                   {"answer", "{a}"},
                                   {"metric", "stated"}},
                                  "{\"q\":\"x\",\"a\":\"y\"}\n");
  EXPECT_EQ(written.chat->kind(), TaskKind::kGenerative);
  EXPECT_EQ(written.chat->example(0).rule, AnswerRule::kStated);
}

TEST_F(Custom, NamesWhatIsWrong) {
  const nlohmann::json good = {
      {"name", "c"}, {"form", "multiple_choice"}, {"data", "rows.jsonl"}, {"query", "{q}"}, {"choices", "o"}, {"gold", "g"}};
  const auto without = [&](const char* key) {
    nlohmann::json description = good;
    description.erase(key);
    return description;
  };
  EXPECT_THAT([&] { load(without("gold"), ""); }, ThrowsMessage<ConfigError>(HasSubstr("\"gold\" is missing")));
  nlohmann::json misspelt = good;
  misspelt["chioces"] = "o";
  EXPECT_THAT([&] { load(misspelt, ""); }, ThrowsMessage<ConfigError>(HasSubstr("choices")));
  EXPECT_THAT([&] { load(good, "\n"); }, ThrowsMessage<DataError>(HasSubstr("no rows")));
  EXPECT_THAT([&] { load(good, "{\"q\":\"x\",\"o\":[\"a\"]}\n"); },
              ThrowsMessage<DataError>(HasSubstr("rows.jsonl:1: the row has no \"g\"")));
  EXPECT_THAT([&] { load(good, "{\"q\":\"x\",\"o\":[\"a\"],\"g\":1}\n"); }, ThrowsMessage<DataError>(HasSubstr("0 to 0")));
  EXPECT_THAT([&] { load(good, "{\"q\":\"x\",\"o\":3,\"g\":1}\n"); }, ThrowsMessage<DataError>(HasSubstr("list of strings")));
  EXPECT_THAT([&] { load(good, "[]\n"); }, ThrowsMessage<DataError>(HasSubstr("JSON object")));
}

}  // namespace
}  // namespace nanochat
