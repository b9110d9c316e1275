// `launch` starts ranks that are processes of testing_rank.cpp, or of a shell.
#include "distributed/launch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "distributed/testing.h"

namespace nanochat {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::TemporaryDirectory;
using ::testing::UnorderedElementsAre;

struct Launched {
  int code = -1;
  std::vector<std::string> lines;  // of ranks other than 0
  double seconds = 0;
};

Launched run(const LaunchOptions& options, const std::vector<std::string>& command,
             const std::vector<std::string>& resume = {}) {
  Launched launched;
  const auto start = std::chrono::steady_clock::now();
  launched.code = launch(options, command, resume, [&](std::string_view line) { launched.lines.emplace_back(line); });
  launched.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return launched;
}

std::vector<std::string> shell(const std::string& script) { return {"/bin/sh", "-c", script, "sh"}; }

TEST(Launch, TellsEachProcessWhoItIs) {
  const TemporaryDirectory folder;
  const Launched launched = run({.processes = 3}, shell("echo $RANK $WORLD_SIZE $LOCAL_RANK $LOCAL_WORLD_SIZE $MASTER_ADDR > " +
                                                        folder.path().string() + "/$RANK; echo out; echo err >&2"));
  EXPECT_EQ(launched.code, 0);
  for (const std::string rank : {"0", "1", "2"}) {
    EXPECT_EQ(read_file(folder / rank), rank + " 3 " + rank + " 3 127.0.0.1\n");
  }
  EXPECT_THAT(launched.lines, UnorderedElementsAre("[rank 1] out", "[rank 1] err", "[rank 2] out", "[rank 2] err"));
}

TEST(Launch, RunsRanksThatMeet) {
  setenv("NANOCHAT_DIST_TIMEOUT", "20", 1);
  setenv("OMP_NUM_THREADS", "1", 1);
  const Launched launched = run({.processes = 3}, {testing::rank_program(), "work"});
  EXPECT_EQ(launched.code, 0);
  EXPECT_THAT(launched.lines, AllOf(Contains("[rank 1] 1: sum 3"), Contains("[rank 2] 2: sum 3")));
}

TEST(Launch, WritesOutputToFiles) {
  const TemporaryDirectory folder;
  const Launched launched = run({.processes = 2, .log_dir = folder / "logs"}, shell("echo out $RANK"));
  EXPECT_EQ(launched.code, 0);
  EXPECT_THAT(launched.lines, IsEmpty());
  EXPECT_EQ(read_file(folder / "logs" / "rank-1.log"), "out 1\n");
  EXPECT_FALSE(std::filesystem::exists(folder / "logs" / "rank-0.log"));
}

TEST(Launch, EndsAllWhenOneFails) {
  const Launched launched = run({.processes = 3, .grace_seconds = 20}, shell("[ $RANK = 1 ] && exit 3; exec sleep 60"));
  EXPECT_EQ(launched.code, 3) << "of the first that failed, not of those that were ended";
  EXPECT_LT(launched.seconds, 10);
}

TEST(Launch, SaysWhichSignalEndedOne) {
  const Launched launched = run({.processes = 2, .grace_seconds = 20}, shell("[ $RANK = 1 ] && kill -9 $$; exec sleep 60"));
  EXPECT_EQ(launched.code, 128 + SIGKILL);
  EXPECT_LT(launched.seconds, 10);
}

TEST(Launch, KillsWhatDoesNotEnd) {
  const Launched launched = run({.processes = 2, .grace_seconds = 1},
                                shell("[ $RANK = 1 ] && { sleep 0.3; exit 4; }; trap '' TERM; while true; do sleep 0.1; done"));
  EXPECT_EQ(launched.code, 4);
  EXPECT_GE(launched.seconds, 1);
  EXPECT_LT(launched.seconds, 10);
}

TEST(Launch, NamesTheKilledRankToTheOthers) {
  const TemporaryDirectory folder;
  // The shell hands rank 1's number to the killer, and becomes the rank.
  const std::string script = "echo $$ > " + folder.path().string() + "/$RANK; exec " + testing::rank_program() + " steps";
  std::thread killer([&] {
    const std::filesystem::path file = folder / "1";
    for (int i = 0; i < 1000 && (!std::filesystem::exists(file) || std::filesystem::file_size(file) == 0); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1500));
    ::kill(std::stoi(read_file(file)), SIGKILL);
  });
  setenv("NANOCHAT_DIST_TIMEOUT", "20", 1);
  const Launched launched = run({.processes = 3, .grace_seconds = 20}, shell("trap '' TERM; " + script));
  killer.join();
  EXPECT_EQ(launched.code, 128 + SIGKILL);
  EXPECT_THAT(launched.lines,
              Contains(AllOf(HasSubstr("[rank 2] ERROR rank 1 ("), HasSubstr("was ended by signal 9 (Killed)"))));
  EXPECT_LT(launched.seconds, 15) << "it is told at once, not after the time-out";
}

TEST(Launch, HandsOnSignals) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    const TemporaryDirectory folder;
    const std::string name = signal == SIGINT ? "INT" : signal == SIGTERM ? "TERM" : "HUP";
    std::thread sender([&] {
      sigset_t all;
      sigfillset(&all);
      ::pthread_sigmask(SIG_BLOCK, &all, nullptr);  // launch() takes the signal, not this thread
      for (int i = 0; i < 1000 && !(std::filesystem::exists(folder / "ready0") && std::filesystem::exists(folder / "ready1"));
           ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
      ::kill(::getpid(), signal);
    });
    const Launched launched = run(
        {.processes = 2, .max_restarts = 3},
        shell("cd " + folder.path().string() + "; trap 'echo got >> got$RANK; exit 0' " + name +
              "; touch ready$RANK; i=0; while [ $i -lt 300 ]; do sleep 0.1; i=$((i+1)); done; exit 9"));
    sender.join();
    EXPECT_EQ(launched.code, 0) << "they saved and ended";
    EXPECT_EQ(read_file(folder / "got0"), "got\n") << "once";
    EXPECT_EQ(read_file(folder / "got1"), "got\n");
  }
}

TEST(Launch, StartsAgainFromTheLastCheckpoint) {
  const TemporaryDirectory folder;
  const Launched launched = run({.processes = 2, .max_restarts = 2},
                                shell("cd " + folder.path().string() +
                                      "; echo $TORCHELASTIC_RESTART_COUNT \"$@\" >> words$RANK; "
                                      "[ $RANK = 1 ] && [ $TORCHELASTIC_RESTART_COUNT -lt 2 ] && exit 1; exit 0"),
                                {"--resume", "latest"});
  EXPECT_EQ(launched.code, 0);
  EXPECT_EQ(read_file(folder / "words1"), "0\n1 --resume latest\n2 --resume latest\n");
}

TEST(Launch, GivesUpAfterTheLastRestart) {
  const TemporaryDirectory folder;
  const Launched launched = run({.processes = 2, .max_restarts = 2},
                                shell("echo again >> " + folder.path().string() + "/$RANK; [ $RANK = 1 ] && exit 6; exit 0"));
  EXPECT_EQ(launched.code, 6);
  EXPECT_EQ(read_file(folder / "1"), "again\nagain\nagain\n");
}

TEST(Launch, DoesNotRepeatWrongUsage) {
  const TemporaryDirectory folder;
  const Launched launched = run({.processes = 2, .max_restarts = 5},
                                shell("cd " + folder.path().string() +
                                      "; echo again >> $RANK; until [ -e 1 ]; do sleep 0.01; done; exit 2"));
  EXPECT_EQ(launched.code, 2);
  EXPECT_EQ(read_file(folder / "1"), "again\n");
}

TEST(Launch, RestartsRanksThatMeetAnew) {
  const TemporaryDirectory folder;
  setenv("NANOCHAT_DIST_TIMEOUT", "20", 1);
  const Launched launched = run({.processes = 2, .max_restarts = 1, .grace_seconds = 20},
                                shell("if [ $TORCHELASTIC_RESTART_COUNT = 0 ]; then exec " + testing::rank_program() +
                                      " steps fail:1; else exec " + testing::rank_program() + " work; fi"));
  EXPECT_EQ(launched.code, 0);
  EXPECT_THAT(launched.lines, Contains("[rank 1] 1: sum 2"));
}

TEST(Launch, RunsRanksOfSeveralMachines) {
  setenv("NANOCHAT_DIST_TIMEOUT", "30", 1);
  const int port = testing::free_port();
  const std::string second = testing::rank_program();
  // The second machine's launcher is a process of its own, as signals are the process's.
  const pid_t other = ::fork();
  if (other == 0) {
    int code = 1;
    try {
      code = launch({.processes = 2, .nodes = 2, .node_rank = 1, .master_port = port}, {second, "work"}, {},
                    [](std::string_view) {});
    } catch (const std::exception&) {
    }
    ::_exit(code);
  }
  const Launched launched = run({.processes = 2, .nodes = 2, .node_rank = 0, .master_port = port},
                                {testing::rank_program(), "work"});
  EXPECT_EQ(launched.code, 0);
  EXPECT_THAT(launched.lines, Contains("[rank 1] 1: sum 4"));
  int status = 0;
  ::waitpid(other, &status, 0);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(Launch, RefusesATakenPort) {
  const distributed::StoreServer taken("127.0.0.1", 0, false, {"address", "port"});
  EXPECT_THROW(run({.processes = 2, .master_port = taken.port()}, shell("exit 0")), ConfigError);
}

TEST(Launch, SaysThatAProgramIsMissing) { EXPECT_EQ(run({.processes = 1}, {"/no/such/program"}).code, 127); }

}  // namespace
}  // namespace nanochat
