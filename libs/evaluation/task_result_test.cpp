#include "evaluation/task_result.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/errors.h"
#include "core/testing.h"
#include "evaluation/core_bundle.h"
#include "evaluation/internal/core_yaml.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TaskResult accuracy(const std::string& suite, const std::string& task, std::int64_t correct, double baseline) {
  TaskResult result;
  result.suite = suite;
  result.task = task;
  result.baseline = baseline;
  take_accuracy(result, {correct, 10});
  return result;
}

TEST(TaskResult, CentresAndTellsItsError) {
  const TaskResult result = accuracy("core", "a", 7, 0.25);
  EXPECT_DOUBLE_EQ(result.value, 0.7);
  EXPECT_DOUBLE_EQ(*result.standard_error, std::sqrt(0.7 * 0.3 / 10));
  EXPECT_DOUBLE_EQ(*result.centered(), 0.6);
}

TEST(EvaluationResult, HasAMeanOnlyOfWholeSuites) {
  EvaluationResult evaluation;
  evaluation.results = {accuracy("core", "a", 7, 0.25), accuracy("core", "b", 5, 0.5), accuracy("chat", "gsm8k", 1, 0)};
  EXPECT_DOUBLE_EQ(*evaluation.core(), 0.3);
  EXPECT_FALSE(evaluation.chat_core());
  evaluation.results[1].error = "missing";
  EXPECT_FALSE(evaluation.core());
  evaluation.results.clear();
  EXPECT_FALSE(evaluation.core());
  for (const auto& [task, baseline] : chat_core_baselines()) evaluation.results.push_back(accuracy("chat", task, 10, baseline));
  EXPECT_DOUBLE_EQ(*evaluation.chat_core(), 1.0);
}

TEST(EvaluationResult, ComesBackFromJson) {
  EvaluationResult evaluation;
  evaluation.model = {{"checkpoint", "x"}, {"step", 3}};
  evaluation.settings = {{"dtype", "float32"}};
  evaluation.results = {accuracy("core", "a", 7, 0.25)};
  evaluation.results[0].notes = {"cut, twice"};
  evaluation.results[0].groups["g"] = {1, 2};
  TaskResult failed;
  failed.suite = "core";
  failed.task = "b";
  failed.error = "no \"file\"";
  evaluation.results.push_back(failed);
  const nlohmann::json json = to_json(evaluation);
  const EvaluationResult again = evaluation_from_json(json, "x");
  EXPECT_EQ(to_json(again), json);
  EXPECT_EQ(again.results[0].groups.at("g"), (TaskCounts{1, 2}));
  const std::string csv = to_csv(evaluation);
  EXPECT_THAT(csv, HasSubstr("core,a,accuracy,0.700000,0.144914,7,10,0.250000,0.600000,\"cut, twice\"\n"));
  EXPECT_THAT(csv, HasSubstr("\"error: no \"\"file\"\"\""));

  const testing::TemporaryDirectory folder;
  testing::write_text(folder / "eval.json", json.dump());
  EXPECT_EQ(to_json(read_evaluation(folder / "eval.json")), json);
  testing::write_text(folder / "eval.json", "{}");
  EXPECT_THAT([&] { read_evaluation(folder / "eval.json"); }, ThrowsMessage<DataError>(HasSubstr("eval.json: not the result")));
  testing::write_text(folder / "eval.json", R"({"format_version": 2})");
  EXPECT_THAT([&] { read_evaluation(folder / "eval.json"); }, ThrowsMessage<DataError>(HasSubstr("format_version is 2")));
}

TEST(EvaluationResult, KeepsEarlierFiguresOfTheSameCheckpoint) {
  EvaluationResult earlier, now;
  earlier.model = now.model = {{"checkpoint", "x"}};
  earlier.results = {accuracy("core", "a", 1, 0), accuracy("chat", "gsm8k", 2, 0)};
  now.results = {accuracy("core", "a", 9, 0)};
  merge_earlier(now, earlier);
  ASSERT_EQ(now.results.size(), 2U);
  EXPECT_EQ(now.results[0].counts.correct, 9);
  now.model = {{"checkpoint", "y"}};
  now.results.resize(1);
  merge_earlier(now, earlier);
  EXPECT_EQ(now.results.size(), 1U);
}

// From the raw accuracies that the reference measured for GPT-2: its centred values and its CORE.
TEST(Core, IsTheReferencesForGpt2) {
  NANOCHAT_SHARED_OR_SKIP(bundle, "data/core");
  const auto tasks = read_core_bundle(bundle);
  const std::map<std::string, double> expected = {
      {"gpt2", 0.113891}, {"gpt2-medium", 0.184903}, {"gpt2-large", 0.214641}, {"gpt2-xl", 0.256525}};
  for (const auto& [model, core] : expected) {
    const auto rows = read_csv(bundle / "reference" / ("openai-community-" + model + ".csv"));
    EvaluationResult evaluation;
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      ASSERT_THAT(rows.at(i + 1).at(0), ::testing::StartsWith(tasks[i].label + " "));
      TaskResult result;
      result.suite = "core";
      result.baseline = tasks[i].random_baseline;
      result.value = std::stod(rows[i + 1][1]);
      // Six printed digits of the accuracy are divided by 1 - baseline.
      EXPECT_NEAR(*result.centered(), std::stod(rows[i + 1][2]), 1e-6 / (1 - *result.baseline))
          << model << " " << tasks[i].label;
      evaluation.results.push_back(result);
    }
    std::printf("%s: CORE %.6f\n", model.c_str(), *evaluation.core());
    EXPECT_NEAR(*evaluation.core(), core, 1e-6);
  }
}

}  // namespace
}  // namespace nanochat
