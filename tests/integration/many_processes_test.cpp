// Training by several processes on this machine, against one process with the same batches: the whole program.
#include <signal.h>

#include <chrono>
#include <regex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "checkpoint/checkpoint.h"
#include "checkpoint/testing.h"
#include "core/atomic_file.h"
#include "many_processes.h"
#include "model/testing.h"
#include "model/testing_config.h"
#include "small_run.h"

namespace nanochat::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using Clock = std::chrono::steady_clock;

int count_of(const std::string& part, const std::string& text) {
  int count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++count;
  return count;
}

class ManyProcesses : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(small_run().failure, ""); }

  Arguments finetuning(const std::string& stage, const fs::path& output, const Arguments& more = {}) const {
    return joined({stage, "--base-model", small_run().run, "--mixture", R"([{"task": "toy-spelling", "size": 300}])",
                   "--output-dir", output, "--num-iterations", "50", "--device-batch-size", "2", "--total-batch-size", "512",
                   "--eval-interval", "25", "--eval-tokens", "1024", "--quiet"},
                  joined(kInFloat32, more));
  }
  TemporaryDirectory folder_;
};

TEST_F(ManyProcesses, PretrainAsOneDoes) {
  const ProgramResult one = run(1, pretraining(folder_ / "one", 50));
  ASSERT_EQ(one.exit_code, 0) << one.err;
  for (const int processes : {2, 4}) {
    const fs::path output = folder_ / std::to_string(processes);
    const ProgramResult many = run(processes, joined(pretraining(output, 50), {"--json"}));
    ASSERT_EQ(many.exit_code, 0) << many.err;
    EXPECT_EQ(nlohmann::json::parse(many.out).at("steps"), 50) << "rank 0 alone prints the result";
    expect_same_figures(folder_ / "one", output, "loss", 50);
    expect_same_figures(folder_ / "one", output, "validation_bpb", 1);

    // One log; the others have files of their own. What is sent is what the formula says, and the few figures of a step.
    EXPECT_THAT(read_file(output / "log.txt"), HasSubstr("process 0 of " + std::to_string(processes)));
    EXPECT_THAT(many.err, Not(HasSubstr("[rank 1]"))) << "of the others only warnings and errors are shown";
    for (int rank = 1; rank < processes; ++rank) {
      EXPECT_THAT(read_file(output / ("log.rank-" + std::to_string(rank) + ".txt")),
                  HasSubstr("process " + std::to_string(rank) + " of " + std::to_string(processes)));
    }
    const ProgramResult planned = run_program(joined(pretraining(output, 50),
                                                     {"--plan", "--json", "--world-size", std::to_string(processes)}));
    ASSERT_EQ(planned.exit_code, 0) << planned.err;
    const auto plan = nlohmann::json::parse(planned.out);
    EXPECT_EQ(plan.at("steps"), 50);
    EXPECT_EQ(plan.at("grad_accum_steps"), 4 / processes);
    EXPECT_EQ(plan.at("parameters"), nlohmann::json::parse(many.out).at("parameters"));
    const auto formula = plan.at("sent_bytes").get<double>();
    EXPECT_EQ(figures(output, "sent_bytes").size(), 50u);
    for (const double bytes : figures(output, "sent_bytes")) EXPECT_NEAR(bytes, formula, 1000);

    // Each process wrote its part of the optimizer's state.
    double whole = static_cast<double>(fs::file_size(checkpoint(folder_ / "one", 50) / "optimizer.rank-0-of-1.safetensors")),
           sum = 0;
    for (int rank = 0; rank < processes; ++rank) {
      const auto size = static_cast<double>(
          fs::file_size(checkpoint(output, 50) /
                        ("optimizer.rank-" + std::to_string(rank) + "-of-" + std::to_string(processes) + ".safetensors")));
      EXPECT_LT(size, 1.3 * whole / processes);
      sum += size;
    }
    EXPECT_NEAR(sum / whole, 1.0, 0.01);
    EXPECT_EQ(run_program({"info", output}).exit_code, 0);
  }
}

TEST_F(ManyProcesses, FinetuneAsOneDoes) {
  for (const auto& [stage, score] :
       std::vector<std::pair<std::string, std::string>>{{"midtrain", "validation_bpb"}, {"sft", "validation_loss"}}) {
    const ProgramResult one = run(1, finetuning(stage, folder_ / stage / "one"));
    ASSERT_EQ(one.exit_code, 0) << one.err;
    const ProgramResult two = run(2, finetuning(stage, folder_ / stage / "two"));
    ASSERT_EQ(two.exit_code, 0) << two.err;
    expect_same_figures(folder_ / stage / "one", folder_ / stage / "two", "loss", 50);
    expect_same_figures(folder_ / stage / "one", folder_ / stage / "two", score, 3);
    expect_same_figures(folder_ / stage / "one", folder_ / stage / "two", "supervised_tokens", 50);
  }
}

TEST_F(ManyProcesses, ResumeWithAnotherNumber) {
  const ProgramResult one = run(1, pretraining(folder_ / "one", 30));
  ASSERT_EQ(one.exit_code, 0) << one.err;
  const fs::path output = folder_ / "changing";
  int steps = 0;
  for (const int processes : {2, 1, 4}) {
    steps += 10;
    const Arguments resume = steps > 10 ? Arguments{"--resume", "latest"} : Arguments{};
    const ProgramResult part = run(processes, pretraining(output, steps, resume));
    ASSERT_EQ(part.exit_code, 0) << part.err;
  }
  expect_same_figures(folder_ / "one", output, "loss", 30);
}

TEST_F(ManyProcesses, TrainTheNewestRecipeAsOneDoes) {
  const Arguments recipe = {"--recipe", "nanochat-2026-07", "--warmup-steps", "0"};
  ASSERT_EQ(run(1, pretraining(folder_ / "one", 30, recipe)).exit_code, 0);
  const ProgramResult two = run(2, pretraining(folder_ / "two", 30, recipe));
  ASSERT_EQ(two.exit_code, 0) << two.err;
  expect_same_figures(folder_ / "one", folder_ / "two", "loss", 30);
  expect_same_figures(folder_ / "one", folder_ / "two", "validation_bpb", 1);

  // The decay of the matrices follows the number of steps, which changes here.
  const Arguments without_decay = joined(recipe, {"--weight-decay", "0"});
  ASSERT_EQ(run(1, pretraining(folder_ / "whole", 30, without_decay)).exit_code, 0);
  int steps = 0;
  for (const int processes : {2, 1, 4}) {
    steps += 10;
    const Arguments resume = steps > 10 ? Arguments{"--resume", "latest"} : Arguments{};
    const ProgramResult part = run(processes, pretraining(folder_ / "changing", steps, joined(without_decay, resume)));
    ASSERT_EQ(part.exit_code, 0) << part.err;
  }
  expect_same_figures(folder_ / "whole", folder_ / "changing", "loss", 30);
}

TEST_F(ManyProcesses, SaveWhenOneIsInterrupted) {
  const fs::path output = folder_ / "run";
  Program program(launched(2, pretraining(output, 1000000)), {.environment = kOneThread});
  ASSERT_TRUE(comes_true([&] { return figures(output, "loss").size() > 2; }));
  const std::vector<pid_t> second = processes_of(output, 1);
  ASSERT_EQ(second.size(), 1u);
  ::kill(second.front(), SIGTERM);  // the other one hears of it at the next step
  const ProgramResult result = program.wait();
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("interrupted; continue with --resume latest"));
  EXPECT_TRUE(fs::exists(output / "checkpoints/latest/training_state.json"));
  EXPECT_EQ(run_program({"info", output}).exit_code, 0);
}

// The weights of a run that was killed and restarted are those of one that was not, bit for bit.
TEST_F(ManyProcesses, AKilledOneIsRestarted) {
  constexpr int kSteps = 60;
  const Arguments saving = {"--checkpoint-interval", "10", "--keep-last", "0"};
  const fs::path undisturbed = folder_ / "undisturbed", killed = folder_ / "killed";
  ASSERT_EQ(run(2, pretraining(undisturbed, kSteps, saving)).exit_code, 0);
  Program program(launched(2, pretraining(killed, kSteps, saving), {"--max-restarts", "1"}), {.environment = kOneThread});
  ASSERT_TRUE(comes_true([&] { return fs::exists(checkpoint(killed, 10)); }));
  const std::vector<pid_t> second = processes_of(killed, 1);
  ASSERT_EQ(second.size(), 1u);
  ::kill(second.front(), SIGKILL);
  const ProgramResult result = program.wait();
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, AllOf(HasSubstr("rank 1 ("), HasSubstr("ended by signal 9"), HasSubstr("restart 1 of 1")));
  const fs::path one = checkpoint(undisturbed, kSteps), other = checkpoint(killed, kSteps);
  for (const char* name : {"model.safetensors", "optimizer.rank-0-of-2.safetensors", "optimizer.rank-1-of-2.safetensors"}) {
    EXPECT_TRUE(read_file(one / name) == read_file(other / name)) << name << " differs";
  }
  EXPECT_EQ(figures(killed, "loss"), figures(undisturbed, "loss"));
}

TEST_F(ManyProcesses, AStoppedOneEndsAllAndIsNamed) {
  constexpr double kTimeout = 8, kGraceAndSlack = 5 + 7;
  for (const int rank : {1, 0}) {
    const fs::path output = folder_ / std::to_string(rank);
    Program program(launched(2, pretraining(output, 1000000, {"--dist-timeout", std::to_string(kTimeout)})),
                    {.environment = kOneThread});
    ASSERT_TRUE(comes_true([&] { return figures(output, "loss").size() > 2; }));
    const std::vector<pid_t> stopped = processes_of(output, rank);
    ASSERT_EQ(stopped.size(), 1u);
    ::kill(stopped.front(), SIGSTOP);
    const auto start = Clock::now();
    const ProgramResult result = program.wait();
    EXPECT_NE(result.exit_code, 0);
    EXPECT_LT(std::chrono::duration<double>(Clock::now() - start).count(), kTimeout + kGraceAndSlack);
    EXPECT_THAT(result.err, AllOf(HasSubstr("rank " + std::to_string(rank) + " ("), HasSubstr("gave no sign of life")));
    EXPECT_TRUE(processes_of(output, 1 - rank).empty());
  }
}

// A model whose rows of value embeddings for '~' overflow: only who reads that token meets a NaN. With one process and a row
// for each step, the step that fails says where the row is in the order of the data.
TEST_F(ManyProcesses, ANaNOnOneRankEndsAllAndIsNamed) {
  constexpr double kTimeout = 8;
  constexpr int kRanks = 3, kConversations = 24;
  const auto tokenizer = byte_tokenizer(folder_.path());
  const GptConfig config = newest_config(tokenizer->vocab_size(), 64);
  Gpt model = random_model(config, at::kFloat, 1);
  for (Parameter& parameter : model.parameters()) {
    if (parameter.spec.slot == WeightSlot::kValueEmbedding) parameter.value.select(0, '~').fill_(3e38);
  }
  save_checkpoint(folder_ / "base", {&config, model_weights(model), {}, tokenizer.get(), nlohmann::json::object()});
  std::string conversations;
  for (int i = 0; i < kConversations; ++i) {
    const std::string question = fmt::format("{}{}", i, i == 9 ? "~" : "!");
    conversations += nlohmann::json({{"messages",
                                      {{{"role", "user"}, {"content", question}},
                                       {{"role", "assistant"}, {"content", fmt::format("{}.", i + 1)}}}}})
                         .dump() +
                     "\n";
  }
  write_text(folder_ / "rows.jsonl", conversations);
  // Each rank has one row of a step.
  const auto tuning = [&](const std::string& name, int ranks, int seed, const Arguments& more = {}) {
    return joined({"sft",
                   "--base-model",
                   folder_ / "base",
                   "--data-dir",
                   folder_ / "rows.jsonl",
                   "--output-dir",
                   folder_ / name,
                   "--packing",
                   "padding",
                   "--validation-share",
                   "0",
                   "--seed",
                   std::to_string(seed),
                   "--num-iterations",
                   std::to_string(kConversations / ranks),
                   "--device-batch-size",
                   "1",
                   "--total-batch-size",
                   std::to_string(64 * ranks),
                   "--quiet"},
                  joined(kInFloat32, more));
  };
  std::set<int> named;
  for (int seed = 1; named.size() < 2 && seed < 10; ++seed) {
    const ProgramResult alone = run(1, tuning(fmt::format("alone{}", seed), 1, seed));
    ASSERT_EQ(alone.exit_code, 1) << alone.err;
    std::smatch found;
    ASSERT_TRUE(std::regex_search(alone.err, found, std::regex("step ([0-9]+): (layer [0-9]+: .* values)"))) << alone.err;
    const int row = std::stoi(found[1]), step = row / kRanks, rank = row % kRanks;
    if (step == 0 || !named.insert(rank).second) continue;

    const std::string name = fmt::format("together{}", seed);
    Program program(launched(kRanks, tuning(name, kRanks, seed, {"--dist-timeout", std::to_string(kTimeout)})),
                    {.environment = kOneThread});
    ASSERT_TRUE(comes_true([&] {
      return !program.running() || static_cast<int>(figures(folder_ / name, "loss").size()) >= step;
    }));
    const auto start = Clock::now();
    const ProgramResult result = program.wait();
    EXPECT_LT(std::chrono::duration<double>(Clock::now() - start).count(), kTimeout);
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_EQ(static_cast<int>(figures(folder_ / name, "loss").size()), step) << "the step was not applied";
    // Every rank says it, of the same rank.
    const std::string message = fmt::format("step {}: rank {}: {}", step, rank, found[2].str());
    EXPECT_EQ(count_of(message, result.err), kRanks) << message << "\n" << result.err;
    for (int other = 0; other < kRanks; ++other) {
      EXPECT_TRUE(processes_of(folder_ / name, other).empty()) << "rank " << other;
      EXPECT_EQ(count_of(fmt::format(": rank {}: ", other), result.err), other == rank ? kRanks : 0) << result.err;
    }

    // Where such a batch may be skipped, all skip it.
    const ProgramResult skipping = run(kRanks, tuning(name + "skipping", kRanks, seed, {"--skip-bad-steps", "1"}));
    EXPECT_EQ(skipping.exit_code, 0) << skipping.err;
    EXPECT_THAT(read_file(folder_ / (name + "skipping") / "metrics.jsonl"), HasSubstr(fmt::format("rank {}: ", rank)));
    EXPECT_EQ(figures(folder_ / (name + "skipping"), "loss").size(), static_cast<std::size_t>(kConversations / kRanks));
  }
  EXPECT_EQ(named.size(), 2u) << "no seed put the row on another rank";
}

TEST_F(ManyProcesses, SaySoWhenStepsCannotBeShared) {
  const ProgramResult result = run(3, pretraining(folder_ / "run", 5));
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("x 3 processes = 768; the nearest is 768"));
  EXPECT_FALSE(fs::exists(folder_ / "run/checkpoints"));
}

TEST_F(ManyProcesses, EvaluateAsOneDoes) {
  const auto evaluate = [&](int processes) {
    const ProgramResult result = run(processes, {"eval",           small_run().run,
                                                 "--benchmarks",   "toy-facts,bpb",
                                                 "--data-dir",     small_run().shards,
                                                 "--eval-tokens",  "1024",
                                                 "--max-per-task", "9",
                                                 "--max-tokens",   "4",
                                                 "--dtype",        "float32",
                                                 "--device",       "cpu",
                                                 "--threads",      "1",
                                                 "--output-dir",   folder_ / ("eval" + std::to_string(processes)),
                                                 "--json",         "--quiet"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    auto results = nlohmann::json::parse(result.out).at("results");
    for (auto& one : results) one.erase("seconds");
    return results;
  };
  EXPECT_EQ(evaluate(2), evaluate(1));
  EXPECT_TRUE(fs::exists(folder_ / "eval2/examples.rank-1-of-2.jsonl"));
  EXPECT_TRUE(fs::exists(folder_ / "eval2/eval.json"));
}

TEST_F(ManyProcesses, RewardTheirAnswers) {
  const Arguments line = {"rl",
                          "--base-model",
                          folder_ / "chat",
                          "--mixture",
                          R"([{"task": "toy-spelling", "size": 40}])",
                          "--validation-mixture",
                          R"([{"task": "toy-spelling", "size": 10}])",
                          "--num-iterations",
                          "3",
                          "--examples-per-step",
                          "3",
                          "--num-samples",
                          "2",
                          "--max-new-tokens",
                          "4",
                          "--eval-examples",
                          "5",
                          "--eval-samples",
                          "2",
                          "--device",
                          "cpu",
                          "--threads",
                          "1",
                          "--output-dir",
                          folder_ / "rl",
                          "--quiet"};
  const ProgramResult missing = run(2, line);
  EXPECT_EQ(missing.exit_code, 4) << missing.err;
  ASSERT_EQ(run(1, finetuning("sft", folder_ / "chat", {"--num-iterations", "2"})).exit_code, 0);
  const ProgramResult rewarded = run(2, line);
  ASSERT_EQ(rewarded.exit_code, 0) << rewarded.err;
  EXPECT_EQ(figures(folder_ / "rl", "reward").size(), 3u);
  EXPECT_FALSE(figures(folder_ / "rl", "pass@2").empty());
}

}  // namespace
}  // namespace nanochat::testing
