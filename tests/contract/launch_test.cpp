// `nanochat launch`, and a command that runs on several processes.
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "program.h"

namespace nanochat::testing {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::map<std::string, std::string> kOneThread{{"OMP_NUM_THREADS", "1"}};

ProgramResult launch(const std::vector<std::string>& options, const std::vector<std::string>& command) {
  std::vector<std::string> words = {"launch"};
  words.insert(words.end(), options.begin(), options.end());
  words.emplace_back("--");
  words.insert(words.end(), command.begin(), command.end());
  return run_program(words, "", kOneThread);
}

const std::vector<std::string> kBench = {"bench", "comm", "--device", "cpu", "--bytes", "65536", "--steps", "2", "--json"};

TEST(LaunchContract, RunsACommandAsSeveralProcesses) {
  const ProgramResult result = launch({"--nproc", "3"}, kBench);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json report = json::parse(result.out);  // of rank 0 alone
  EXPECT_EQ(report.at("ranks"), 3);
  std::vector<std::string> operations;
  for (const json& one : report.at("results")) {
    operations.push_back(one.at("operation"));
    EXPECT_GT(one.at("seconds").get<double>(), 0.0);
  }
  EXPECT_THAT(operations, ::testing::IsSupersetOf({"agree", "all_reduce", "reduce_scatter", "all_gather", "broadcast"}));
}

TEST(LaunchContract, BenchTrainAddsUpTheTokensOfAllProcesses) {
  const ProgramResult result = launch({"--nproc", "2"},
                                      {"bench", "train", "--depth", "1", "--sequence-len", "32", "--device-batch-size", "4",
                                       "--micro-batches", "2", "--vocab-size", "256", "--steps", "3", "--device", "cpu",
                                       "--dtype", "float32", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json report = json::parse(result.out);  // of rank 0 alone
  EXPECT_EQ(report.at("world_size"), 2);
  EXPECT_EQ(report.at("micro_batches"), 2);
  const double tokens_per_step = 2 * 2 * 4 * 32;
  EXPECT_NEAR(report.at("tokens_per_second").get<double>() * report.at("step_ms").get<double>() / 1e3, tokens_per_step,
              1e-6 * tokens_per_step);
}

TEST(LaunchContract, HandsOnOptionsAfterTheMark) {
  const ProgramResult result = launch({"--nproc", "1"}, {"info", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(json::parse(result.out).contains("version"));
}

TEST(LaunchContract, EndsWithTheExitCodeOfTheCommand) {
  const ProgramResult result = launch({"--nproc", "2"}, {"info", "/no/such/folder"});
  const ProgramResult alone = run_program({"info", "/no/such/folder"});
  EXPECT_NE(alone.exit_code, 0);
  EXPECT_EQ(result.exit_code, alone.exit_code) << result.err;
  EXPECT_THAT(result.err, AllOf(HasSubstr("nanochat info: "), HasSubstr("ended with exit code ")));
}

TEST(LaunchContract, RefusesWhatCannotBeRun) {
  struct Case {
    std::vector<std::string> options, command;
    std::string message;
  };
  for (const Case& one : std::vector<Case>{
           {{"--nproc", "2"}, {"no-such-command"}, "\"no-such-command\" is no command of nanochat"},
           {{"--nproc", "2"}, {}, "--command: is required"},
           {{"--nproc", "-1"}, kBench, "--nproc"},
           {{"--nproc", "2", "--nnodes", "2"}, kBench, "needs --master-addr and --master-port"},
           {{"--nproc", "2", "--node-rank", "1"}, kBench, "--node-rank 1: must be below --nnodes 1"},
           {{"--nproc", "2", "--master-addr", "192.0.2.1"}, kBench, "--master-addr 192.0.2.1 is no address of "}}) {
    const ProgramResult result = launch(one.options, one.command);
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_THAT(result.err, HasSubstr(one.message));
    EXPECT_THAT(result.out, IsEmpty());
  }
}

TEST(LaunchContract, NamesTheVariableThatIsMissing) {
  const ProgramResult result = run_program(kBench, "", {{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_PORT", "29500"}});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("LOCAL_RANK is not"));
}

}  // namespace
}  // namespace nanochat::testing
