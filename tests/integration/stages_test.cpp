// From text to a model that was rewarded for its answers, through the program alone: every stage, and a chain of them.
#include <algorithm>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "small_run.h"

namespace nanochat::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

class Stages : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(small_run().failure, ""); }
  TemporaryDirectory folder_;
};

TEST_F(Stages, OnesOwnFileInOneLine) {
  write_text(folder_ / "my.jsonl",
             "{\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"},{\"role\":\"assistant\",\"content\":\"Hi.\"}]}\n"
             "{\"instruction\":\"x\",\"output\":\"y\"}\n"
             "{\"messages\":[{\"role\":\"user\",\"content\":\"Bye\"},{\"role\":\"assistant\",\"content\":\"Bye.\"}]}\n");
  const std::vector<std::string> line = {"sft",          "--base-model",   small_run().run, "--data-dir", folder_ / "my.jsonl",
                                         "--output-dir", folder_ / "mine", "--json",        "--quiet"};
  const ProgramResult refused = run_program(line);
  EXPECT_EQ(refused.exit_code, 3);
  EXPECT_THAT(refused.err, HasSubstr("my.jsonl:2"));
  std::vector<std::string> skipping = line;
  skipping.push_back("--skip-bad");
  const ProgramResult result = run_program(skipping);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("1 of 3 rows skipped"));
  const auto json = nlohmann::json::parse(result.out);
  EXPECT_GE(json.at("steps"), 1);
  EXPECT_GT(json.at("validation_loss"), 0.0) << "part of the data was held out";
}

TEST_F(Stages, ScoresWhileItTrains) {
  fs::create_directories(folder_ / "bundle/eval_data");
  write_text(
      folder_ / "bundle/core.yaml",
      "icl_tasks:\n- label: capitals\n  dataset_uri: capitals.jsonl\n  num_fewshot: [0]\n  icl_task_type: multiple_choice\n");
  write_text(folder_ / "bundle/eval_meta_data.csv", "Eval Task,Random baseline\ncapitals,50\n");
  write_text(folder_ / "bundle/eval_data/capitals.jsonl",
             R"({"query": "The capital of France is", "choices": ["Paris", "Rome"], "gold": 0})"
             "\n");
  write_text(folder_ / "arc.jsonl",
             R"({"question": "Is it?", "choices": {"text": ["yes", "no"], "label": ["A", "B"]}, "answerKey": "A"})"
             "\n");
  const auto steps_with = [](const fs::path& run, const char* key) {
    std::vector<int> steps;
    std::ifstream file(run / "metrics.jsonl");
    for (std::string line; std::getline(file, line);) {
      const auto row = nlohmann::json::parse(line);
      if (row.contains(key)) steps.push_back(row.at("step"));
    }
    return steps;
  };

  auto pretrain = small_run().pretrain_arguments(folder_ / "base");
  pretrain.insert(pretrain.end(), {"--core-every", "5", "--core-bundle", folder_ / "bundle"});
  const ProgramResult base = run_program(pretrain);
  ASSERT_EQ(base.exit_code, 0) << base.err;
  EXPECT_EQ(steps_with(folder_ / "base", "core"), (std::vector{5, 10, 12}));
  EXPECT_EQ(steps_with(folder_ / "base", "core_capitals"), (std::vector{5, 10, 12}));
  EXPECT_TRUE(fs::exists(folder_ / "base/checkpoints/step-000010")) << "saved before it was scored";

  const std::vector<std::string> sft = {"sft",
                                        "--base-model",
                                        folder_ / "base",
                                        "--mixture",
                                        R"([{"task": "toy-spelling", "size": 40}])",
                                        "--num-iterations",
                                        "3",
                                        "--output-dir",
                                        folder_ / "sft",
                                        "--quiet",
                                        "--task-every",
                                        "2"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), sft.begin(), sft.end());
    return run_program(more);
  };
  const ProgramResult missing = with({"--benchmarks", "arc-easy", "--benchmark-dir", folder_.path()});
  EXPECT_EQ(missing.exit_code, 3);
  EXPECT_FALSE(fs::exists(folder_ / "sft")) << "found before training";
  const ProgramResult tuned = with({"--benchmarks", "arc-easy,toy-facts", "--task-file",
                                    "arc-easy=" + (folder_ / "arc.jsonl").string(), "--max-per-task", "4", "--max-tokens",
                                    "4"});
  ASSERT_EQ(tuned.exit_code, 0) << tuned.err;
  EXPECT_EQ(steps_with(folder_ / "sft", "accuracy_arc-easy"), (std::vector{2, 3}));
  EXPECT_EQ(steps_with(folder_ / "sft", "accuracy"), (std::vector{2, 3}));

  ASSERT_EQ(run_program({"report", folder_ / "base", folder_ / "sft"}).exit_code, 0);
  std::ifstream page(folder_ / "base/report.md");
  const std::string report{std::istreambuf_iterator<char>(page), {}};
  EXPECT_THAT(report, HasSubstr("sft, arc-easy"));
  EXPECT_THAT(report, HasSubstr("processor"));
}

TEST_F(Stages, BitsPerByteOfTextOrShards) {
  const auto tasks = [](const fs::path& data) {
    const ProgramResult result = run_program({"eval", small_run().run, "--benchmarks", "bpb", "--data-dir", data,
                                              "--eval-tokens", "2048", "--device-batch-size", "4", "--output-dir",
                                              small_run().folder / "bpb", "--json", "--quiet"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    const auto evaluation = nlohmann::json::parse(result.out);
    std::vector<std::string> names;
    for (const auto& row : evaluation.at("results")) names.push_back(row.at("task"));
    return names;
  };
  EXPECT_EQ(tasks(small_run().shards), (std::vector<std::string>{"train", "validation"}));
  EXPECT_EQ(tasks(small_run().corpus), std::vector<std::string>{"text"});
}

TEST_F(Stages, AChainRunsIsSkippedAndGoesOn) {
  const fs::path run = folder_ / "chain", file = folder_ / "chain.json";
  const auto write = [&](int sft_steps) {
    const nlohmann::json spelling = {{{"task", "toy-spelling"}, {"size", 40}}};
    const nlohmann::json steps = {
        {{"name", "mid"},
         {"command", "midtrain"},
         {"options",
          {{"base_model", "{run}/base"}, {"mixture", spelling}, {"num_iterations", 2}, {"output_dir", "{run}/mid"}}}},
        {{"name", "sft"},
         {"command", "sft"},
         {"options",
          {{"base_model", "{run}/mid"}, {"mixture", spelling}, {"num_iterations", sft_steps}, {"output_dir", "{run}/sft"}}}},
        {{"name", "rl"},
         {"command", "rl"},
         {"options",
          {{"base_model", "{run}/sft"},
           {"mixture", spelling},
           {"validation_mixture", spelling},
           {"num_iterations", 2},
           {"examples_per_step", 2},
           {"num_samples", 2},
           {"max_new_tokens", 4},
           {"eval_examples", 2},
           {"eval_samples", 1},
           {"output_dir", "{run}/rl"}}}}};
    nlohmann::json all = nlohmann::json::array();
    all.push_back({{"name", "toy"}, {"command", "data toy"}, {"options", {{"output_dir", "{run}/toy"}, {"bytes", 300000}}}});
    all.push_back({{"name", "tokenizer"},
                   {"command", "tokenizer train"},
                   {"options",
                    {{"data_dir", {"{run}/toy/toy.jsonl"}}, {"vocab_size", 512}, {"output_dir", "{run}/tokenizer"}}}});
    all.push_back({{"name", "base"},
                   {"command", "pretrain"},
                   {"options",
                    {{"data_dir", {"{run}/toy/toy.jsonl"}},
                     {"tokenizer", "{run}/tokenizer"},
                     {"depth", 1},
                     {"sequence_len", 64},
                     {"device_batch_size", 4},
                     {"total_batch_size", 256},
                     {"num_iterations", 2},
                     {"eval_tokens", 256},
                     {"sample_interval", -1},
                     {"output_dir", "{run}/base"}}}});
    all.insert(all.end(), steps.begin(), steps.end());
    write_text(file, nlohmann::json({{"name", "x"}, {"output_dir", run.string()}, {"steps", all}}).dump());
  };
  write(2);
  const ProgramResult plan = run_program({"run", file, "--plan", "--json"});
  ASSERT_EQ(plan.exit_code, 0) << plan.err;
  EXPECT_EQ(nlohmann::json::parse(plan.out).size(), 6U);
  const ProgramResult of_two = run_program({"run", file, "--plan", "--json", "--world-size", "2", "--link-speed", "10"});
  ASSERT_EQ(of_two.exit_code, 0) << of_two.err;
  for (const auto& step : nlohmann::json::parse(of_two.out)) {
    EXPECT_EQ(step.at("sent_bytes").get<std::int64_t>() > 0, step.at("parameters").get<std::int64_t>() > 0) << step;
  }
  EXPECT_EQ(run_program({"run", file, "--world-size", "2"}).exit_code, 2) << "only a plan takes it";
  EXPECT_FALSE(fs::exists(run)) << "a plan runs nothing";

  const ProgramResult first = run_program({"run", file, "--until", "mid"});
  ASSERT_EQ(first.exit_code, 0) << first.err;
  EXPECT_TRUE(fs::exists(run / "mid/checkpoints/latest"));
  EXPECT_FALSE(fs::exists(run / "sft"));
  const ProgramResult rest = run_program({"run", file});
  ASSERT_EQ(rest.exit_code, 0) << rest.err;
  EXPECT_THAT(rest.err, HasSubstr("step mid: done before"));
  EXPECT_EQ(fs::read_symlink(run / "rl/checkpoints/latest"), "step-000002");
  const ProgramResult again = run_program({"run", file});
  EXPECT_EQ(again.exit_code, 0);
  EXPECT_THAT(again.err, Not(HasSubstr("nanochat rl")));

  write(3);
  const ProgramResult changed = run_program({"run", file});
  EXPECT_EQ(changed.exit_code, 2);
  EXPECT_THAT(changed.err, HasSubstr("num_iterations: 2 → 3"));
}

TEST_F(Stages, AChainThatFailsSaysWhereItGoesOn) {
  write_text(folder_ / "chain.json",
             nlohmann::json(
                 {{"name", "x"},
                  {"output_dir", (folder_ / "chain").string()},
                  {"steps",
                   {{{"name", "tokenizer"},
                     {"command", "tokenizer train"},
                     {"options", {{"data_dir", {"/nowhere.txt"}}, {"vocab_size", 512}, {"output_dir", "{run}/tokenizer"}}}}}}})
                 .dump());
  const ProgramResult result = run_program({"run", folder_ / "chain.json"});
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_THAT(result.err, HasSubstr("step tokenizer did not end well"));
}

}  // namespace
}  // namespace nanochat::testing
