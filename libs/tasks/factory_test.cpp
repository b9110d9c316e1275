#include "tasks/factory.h"

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

class Factory : public ::testing::Test {
 protected:
  Factory() {
    const std::string row = R"({"question": "q", "answer": "#### 1"})"
                            "\n";
    fs::create_directories(folder_ / "gsm8k/main");
    testing::write_text(folder_ / "gsm8k/main/train-00000-of-00001.jsonl", row + row + row);
    testing::write_text(folder_ / "gsm8k/main/test-00000-of-00001.jsonl", row);
    fs::create_directories(folder_ / "arc");
    const std::string arc = R"({"question": "q", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "A"})"
                            "\n";
    testing::write_text(folder_ / "arc/ARC-Easy-test.jsonl", arc);
    testing::write_text(folder_ / "arc/ARC-Challenge-test.jsonl", arc + arc);
    testing::write_text(folder_ / "words.txt", "one\ntwo\n");
  }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  static std::shared_ptr<const Task> make(const json& entry) { return make_task(parse_task(entry, "test")); }
  testing::TemporaryDirectory folder_;
};

TEST_F(Factory, MakesEveryTask) {
  EXPECT_EQ(make({{"task", "gsm8k"}, {"path", path("gsm8k")}, {"split", "train"}})->size(), 3);
  EXPECT_EQ(make({{"task", "gsm8k"}, {"path", path("gsm8k")}, {"split", "test"}})->size(), 1);
  EXPECT_EQ(make({{"task", "gsm8k"}, {"path", path("gsm8k")}})->size(), 4) << "no split: all files";
  EXPECT_EQ(make({{"task", "gsm8k"}, {"path", path("gsm8k/main/train-00000-of-00001.jsonl")}, {"split", "test"}})->size(), 3)
      << "a file is taken as it is";
  const auto challenge = make({{"task", "arc"}, {"path", {path("arc")}}, {"split", "test"}, {"subset", "ARC-Challenge"}});
  EXPECT_EQ(challenge->size(), 2);
  EXPECT_EQ(challenge->name(), "arc-challenge");
  EXPECT_EQ(make({{"task", "spelling"}, {"path", path("words.txt")}})->size(), 1000);
  EXPECT_EQ(make({{"task", "spelling-bee"}, {"path", path("words.txt")}, {"size", 7}, {"split", "test"}})->size(), 7);
  EXPECT_EQ(make({{"task", "toy-facts"}, {"split", "test"}, {"size", 50}})->size(), 50);
  EXPECT_EQ(make({{"task", "toy-arithmetic"}, {"start", 10}, {"stop", 30}})->size(), 20);
  EXPECT_EQ(make({{"task", "toy-spelling"}})->name(), "toy-spelling");
  EXPECT_EQ(task_names().size(), 11U);
}

TEST_F(Factory, TakesTheRowsOfASetInTheOrderOfTheReference) {
  std::string sums, talks;
  for (const char* n : {"0", "1", "2", "3", "4"}) {
    sums += json({{"question", n}, {"answer", "#### 1"}}).dump() + "\n";
    talks += json({{{"role", "user"}, {"content", n}}, {{"role", "assistant"}, {"content", "a"}}}).dump() + "\n";
  }
  testing::write_text(folder_ / "sums.jsonl", sums);
  testing::write_text(folder_ / "talks.jsonl", talks);
  const auto order = [&](const char* task, const char* file) {
    const auto rows = make({{"task", task}, {"path", path(file)}});
    std::string questions;
    for (std::int64_t i = 0; i < rows->size(); ++i) questions += rows->example(i).conversation.messages[0].joined_text();
    return questions;
  };
  EXPECT_EQ(order("gsm8k", "sums.jsonl"), "42310") << "numpy.random.default_rng(42).permutation(5)";
  EXPECT_EQ(order("smoltalk", "talks.jsonl"), "42310");
  EXPECT_EQ(order("conversations", "talks.jsonl"), "01234") << "a file of one's own stays as it is";
}

TEST_F(Factory, SaysWhatIsWrongWithAnEntry) {
  const auto fails = [](const json& entry, const std::string& what) {
    EXPECT_THAT([&] { make(entry); }, ThrowsMessage<ConfigError>(HasSubstr(what))) << entry;
  };
  fails({{"task", "gsm8"}, {"path", "x"}}, "test: unknown task \"gsm8\", did you mean \"gsm8k\"?");
  fails({{"task", "gsm8k"}, {"pth", "x"}}, "path");
  fails({{"task", "gsm8k"}}, "task \"gsm8k\": found no \"path\", expected files or folders");
  fails({{"task", "toy-facts"}, {"path", "x"}}, "found a \"path\", expected none");
  fails({{"task", "toy-facts"}, {"split", "dev"}}, "expected train or test");
  fails({{"task", "toy-facts"}, {"size", -1}}, "size");
  fails({{"task", "spelling"}, {"path", {"a", "b"}}}, "path of spelling: found 2 files, expected one file");
  fails(3, "test");
  EXPECT_THAT(
      [&] {
        make({{"task", "gsm8k"}, {"path", path("gsm8k")}, {"split", "dev"}});
      },
      ThrowsMessage<DataError>(HasSubstr("no file of split dev; it has: main/test-00000-of-00001.jsonl, main/train")));
  EXPECT_THAT(
      [&] {
        make({{"task", "arc"}, {"path", path("arc")}, {"split", "test"}, {"subset", "ARC"}, {"stop", 9}, {"start", 9}});
      },
      ThrowsMessage<ConfigError>(HasSubstr("no rows from 9")));
}

TEST_F(Factory, ReadsMixtures) {
  const json tasks = {{{"task", "gsm8k"}, {"path", path("gsm8k")}, {"split", "train"}, {"repeats", 2}},
                      {{"task", "toy-facts"}, {"cap", 4}}};
  EXPECT_EQ(make_mixture(tasks, "test")->size(), 10);
  EXPECT_EQ(make_mixture({{"tasks", tasks}, {"seed", 7}}, "test")->size(), 10);
  testing::write_text(folder_ / "mixture.json", "// a mixture\n" + tasks.dump());
  const auto mixture = load_mixture(folder_ / "mixture.json");
  EXPECT_THAT(mixture->rows_of_entries(), ElementsAre(6, 4));
  EXPECT_THAT([&] { make_mixture({{"tasks", tasks}, {"sed", 7}}, "test"); }, ThrowsMessage<ConfigError>(HasSubstr("seed")));
  EXPECT_THAT([&] { make_mixture(json::object(), "test"); },
              ThrowsMessage<ConfigError>(HasSubstr("without \"tasks\", expected a list of tasks")));
  EXPECT_THAT(
      [&] {
        make_mixture({{{"task", "toy-facts"}}, {{"task", "x"}}}, "mix.json");
      },
      ThrowsMessage<ConfigError>(HasSubstr("mix.json: task 2: unknown task")));
  testing::write_text(folder_ / "bad.json", "{");
  EXPECT_THAT([&] { load_mixture(folder_ / "bad.json"); }, ThrowsMessage<ConfigError>(HasSubstr("bad.json: not valid JSON")));
}

}  // namespace
}  // namespace nanochat
