// Signals that ask a program to end: what it was doing is saved, or finished.
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "small_run.h"

namespace nanochat::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr std::chrono::seconds kPatience{60};

bool comes_true(const std::function<bool()>& condition) {
  for (const auto end = std::chrono::steady_clock::now() + kPatience; std::chrono::steady_clock::now() < end;) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

class Interrupts : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(small_run().failure, "");
    ::signal(SIGHUP, SIG_DFL);  // these tests may run under nohup
  }
  // A training that would take hours.
  std::vector<std::string> long_training() const {
    auto arguments = small_run().pretrain_arguments(folder_ / "run");
    arguments.insert(arguments.end(), {"--num-iterations", "1000000"});
    return arguments;
  }
  bool trains() const {
    std::error_code ignored;
    return fs::exists(folder_ / "run/metrics.jsonl") && fs::file_size(folder_ / "run/metrics.jsonl", ignored) > 0;
  }
  bool saved() const { return fs::exists(folder_ / "run/checkpoints/latest/training_state.json"); }
  TemporaryDirectory folder_;
};

TEST_F(Interrupts, ASignalSavesTheTraining) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    fs::remove_all(folder_ / "run");
    Program program(long_training());
    ASSERT_TRUE(comes_true([this] { return trains(); }));
    program.send(signal);
    const ProgramResult result = program.wait();
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.out, HasSubstr("interrupted; continue with --resume latest"));
    EXPECT_TRUE(saved()) << signal;
  }
}

// The terminal goes, and with it where the program writes.
TEST_F(Interrupts, AClosedTerminalSavesTheTraining) {
  auto words = long_training();
  words.insert(words.begin(), program_path());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  int terminal = -1;
  const pid_t child = ::forkpty(&terminal, nullptr, nullptr, nullptr);
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  EXPECT_TRUE(comes_true([this] { return trains(); }));
  ::close(terminal);
  int status = 0;
  EXPECT_TRUE(comes_true([&] { return ::waitpid(child, &status, WNOHANG) == child; }));
  EXPECT_TRUE(WIFEXITED(status)) << "ended by signal " << WTERMSIG(status);
  EXPECT_TRUE(saved());
}

// Ctrl-C in a terminal reaches the chain and the step that it runs: together they are one request.
TEST_F(Interrupts, CtrlCSavesTheStepOfAChain) {
  write_text(folder_ / "chain.json", nlohmann::json({{"name", "x"},
                                                     {"output_dir", (folder_ / "chain").string()},
                                                     {"steps",
                                                      {{{"name", "tokenizer"},
                                                        {"command", "tokenizer train"},
                                                        {"options",
                                                         {{"data_dir", {small_run().corpus.string()}},
                                                          {"vocab_size", 512},
                                                          {"output_dir", (folder_ / "tokenizer").string()}}}},
                                                       {{"name", "base"},
                                                        {"command", "pretrain"},
                                                        {"options",
                                                         {{"data_dir", {small_run().shards.string()}},
                                                          {"depth", 2},
                                                          {"sequence_len", 64},
                                                          {"device_batch_size", 8},
                                                          {"total_batch_size", 1024},
                                                          {"num_iterations", 1000000},
                                                          {"eval_interval", -1},
                                                          {"output_dir", (folder_ / "run").string()}}}}}}})
                                         .dump());
  Program program({"run", folder_ / "chain.json"}, {.own_group = true});
  ASSERT_TRUE(comes_true([this] { return trains(); }));
  program.send_to_group(SIGINT);
  const ProgramResult result = program.wait();
  EXPECT_NE(result.exit_code, 0) << "the chain is not done";
  EXPECT_NE(result.exit_code, 130) << "the step was not asked twice";
  EXPECT_THAT(result.err, HasSubstr("goes on from there"));
  EXPECT_TRUE(saved());
}

TEST_F(Interrupts, AServerDrains) {
  for (const int signal : {SIGTERM, SIGHUP}) {
    Program program({"serve", small_run().run, "--port", "0", "--log-file", folder_ / "log.txt", "--threads", "1"});
    ASSERT_TRUE(comes_true([this] {
      return fs::exists(folder_ / "log.txt") && read_file(folder_ / "log.txt").find("ready: ") != std::string::npos;
    }));
    program.send(signal);
    const ProgramResult result = program.wait();
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(read_file(folder_ / "log.txt"), HasSubstr("stopped"));
    fs::remove(folder_ / "log.txt");
  }
}

}  // namespace
}  // namespace nanochat::testing
