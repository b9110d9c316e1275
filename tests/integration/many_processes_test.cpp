// Training by several processes on this machine, against one process with the same batches: the whole program.
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <functional>
#include <iterator>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "small_run.h"

namespace nanochat::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using Arguments = std::vector<std::string>;
using Clock = std::chrono::steady_clock;

constexpr double kLossTolerance = 1e-5;  // float32, summed in another order

Arguments joined(Arguments first, const Arguments& more) {
  first.insert(first.end(), more.begin(), more.end());
  return first;
}

Arguments launched(int processes, const Arguments& command, const Arguments& options = {}) {
  if (processes == 1) return command;
  return joined(joined({"launch", "--nproc", std::to_string(processes), "--grace", "5"}, options), joined({"--"}, command));
}

const std::map<std::string, std::string> kOneThread{{"OMP_NUM_THREADS", "1"}};

ProgramResult run(int processes, const Arguments& command, const Arguments& options = {}) {
  return run_program(launched(processes, command, options), "", kOneThread);
}

std::vector<double> figures(const fs::path& folder, const std::string& key) {
  std::vector<double> found;
  std::ifstream file(folder / "metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    const auto row = nlohmann::json::parse(line);
    if (row.contains(key)) found.push_back(row.at(key));
  }
  return found;
}

void expect_same_figures(const fs::path& one, const fs::path& other, const std::string& key, std::size_t count) {
  const std::vector<double> a = figures(one, key), b = figures(other, key);
  ASSERT_EQ(a.size(), count) << key;
  ASSERT_EQ(b.size(), count) << key;
  double worst = 0;
  for (std::size_t i = 0; i < count; ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  EXPECT_LE(worst, kLossTolerance) << key;
  ::testing::Test::RecordProperty(("largest difference of " + key).c_str(), std::to_string(worst));
}

fs::path checkpoint(const fs::path& folder, int step) {
  char name[32];
  std::snprintf(name, sizeof name, "step-%06d", step);
  return folder / "checkpoints" / name;
}

// Processes of this run with this rank, as the system knows them.
std::vector<pid_t> processes_of(const fs::path& folder, int rank) {
  const auto holds = [](const fs::path& file, const std::string& text) {
    std::ifstream stream(file);
    const std::string all{std::istreambuf_iterator<char>(stream), {}};
    return ('\0' + all).find('\0' + text + '\0') != std::string::npos;
  };
  std::vector<pid_t> found;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    if (holds(entry.path() / "cmdline", folder.string()) && holds(entry.path() / "environ", "RANK=" + std::to_string(rank))) {
      found.push_back(std::stoi(name));
    }
  }
  return found;
}

bool comes_true(const std::function<bool()>& condition, double seconds = 90) {
  for (const auto end = Clock::now() + std::chrono::duration<double>(seconds); Clock::now() < end;) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

class ManyProcesses : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(small_run().failure, ""); }

  // 4 micro-batches of 4 rows of 64 tokens, in float32 everywhere.
  Arguments pretraining(const fs::path& output, int steps, const Arguments& more = {}) const {
    return joined({"pretrain",
                   "--data-dir",
                   small_run().shards,
                   "--output-dir",
                   output,
                   "--depth",
                   "2",
                   "--sequence-len",
                   "64",
                   "--device-batch-size",
                   "4",
                   "--total-batch-size",
                   "1024",
                   "--num-iterations",
                   std::to_string(steps),
                   "--eval-tokens",
                   "2048",
                   "--eval-interval",
                   "-1",
                   "--sample-interval",
                   "-1",
                   "--warmdown-ratio",
                   "0",
                   "--dtype",
                   "float32",
                   "--muon-dtype",
                   "float32",
                   "--device",
                   "cpu",
                   "--threads",
                   "1"},
                  more);
  }
  Arguments finetuning(const std::string& stage, const fs::path& output, const Arguments& more = {}) const {
    return joined({stage,
                   "--base-model",
                   small_run().run,
                   "--mixture",
                   R"([{"task": "toy-spelling", "size": 300}])",
                   "--output-dir",
                   output,
                   "--num-iterations",
                   "50",
                   "--device-batch-size",
                   "2",
                   "--total-batch-size",
                   "512",
                   "--eval-interval",
                   "25",
                   "--eval-tokens",
                   "1024",
                   "--dtype",
                   "float32",
                   "--muon-dtype",
                   "float32",
                   "--device",
                   "cpu",
                   "--threads",
                   "1",
                   "--quiet"},
                  more);
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
