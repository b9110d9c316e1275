// What goes wrong between ranks, at the start and later: all others end within the time-out, with a message that
// names the rank.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/errors.h"
#include "distributed/testing.h"

namespace nanochat {
namespace {

using distributed::Clock;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using testing::RankProcess;
using testing::RankResult;
using testing::World;
using testing::WorldSettings;

constexpr double kTimeout = 8;
// A busy machine starts processes and wakes threads late; the time-out itself is not stretched.
constexpr double kSlack = 4;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

void expect_all_in_steps(World& world) {
  for (int rank = 0; rank < world.size(); ++rank) {
    ASSERT_TRUE(world.rank(rank).wait_for_output(std::to_string(rank) + ": ", 60)) << world.rank(rank).output();
  }
}

// All but `lost` end within the time-out, and say `message`.
void expect_named(World& world, int lost, const std::string& message) {
  const Clock::time_point start = Clock::now();
  for (int rank = 0; rank < world.size(); ++rank) {
    if (rank == lost) continue;
    const RankResult result = world.rank(rank).wait(kTimeout + kSlack);
    EXPECT_EQ(result.exit_code, static_cast<int>(ExitCode::kOther)) << "rank " << rank << ": " << result.output;
    EXPECT_THAT(result.output, HasSubstr("ERROR " + message)) << "rank " << rank;
  }
  EXPECT_LT(seconds_since(start), kTimeout + kSlack);
}

class LostRank : public ::testing::TestWithParam<bool> {
 protected:
  WorldSettings settings() const { return {.launcher_has_store = GetParam(), .timeout_seconds = kTimeout}; }
};

TEST_P(LostRank, IsNamedWhenKilled) {
  World world(3, {"steps"}, settings());
  expect_all_in_steps(world);
  world.rank(1).send(SIGKILL);
  expect_named(world, 1, "rank 1 (");
}

TEST_P(LostRank, IsNamedWhenStopped) {
  World world(3, {"steps"}, settings());
  expect_all_in_steps(world);
  world.rank(2).send(SIGSTOP);
  expect_named(world, 2, "rank 2 (");
  // Woken up, it learns that the others went on without it.
  world.rank(2).send(SIGCONT);
  const RankResult woken = world.rank(2).wait(kTimeout + kSlack);
  EXPECT_EQ(woken.exit_code, static_cast<int>(ExitCode::kOther)) << woken.output;
  EXPECT_THAT(woken.output, HasSubstr("ERROR rank "));
}

TEST_P(LostRank, MayBeRankZero) {
  for (const int signal : {SIGKILL, SIGSTOP}) {
    World world(3, {"steps"}, settings());
    expect_all_in_steps(world);
    world.rank(0).send(signal);
    expect_named(world, 0, "rank 0 (");
  }
}

INSTANTIATE_TEST_SUITE_P(Store, LostRank, ::testing::Bool(),
                         [](const auto& given) { return std::string(given.param ? "AtTheLauncher" : "AtRankZero"); });

TEST(Faults, NameARankThatHangs) {
  World world(3, {"steps", "hang:1"}, {.timeout_seconds = kTimeout});
  ASSERT_TRUE(world.rank(1).wait_for_output("1: now", 60));
  expect_named(world, 1, "rank 1 (");
  EXPECT_THAT(world.rank(0).output(), HasSubstr("has not come to all_reduce number"));
  // The rank itself cannot come back from what it does: the last resort ends it.
  const RankResult hanging = world.rank(1).wait(kTimeout + kSlack);
  EXPECT_EQ(hanging.exit_code, static_cast<int>(ExitCode::kOther));
  EXPECT_THAT(hanging.output, HasSubstr("LAST RESORT rank 1 ("));
}

TEST(Faults, NameARankThatExits) {
  World world(3, {"steps", "exit:2"}, {.timeout_seconds = kTimeout});
  ASSERT_TRUE(world.rank(2).wait_for_output("2: now", 60));
  expect_named(world, 2, "rank 2 (");
}

TEST(Faults, TellTheOthersOfAnException) {
  World world(3, {"steps", "throw:1"}, {.timeout_seconds = kTimeout});
  ASSERT_TRUE(world.rank(1).wait_for_output("1: now", 60));
  expect_named(world, 1, "rank 1 (");
  EXPECT_THAT(world.rank(0).output(), HasSubstr("it ended with an error"));
  const RankResult thrower = world.rank(1).wait(kSlack);
  EXPECT_EQ(thrower.exit_code, static_cast<int>(ExitCode::kData));
  EXPECT_THAT(thrower.output, HasSubstr("ERROR the file of rank 1 is damaged"));
}

TEST(Faults, CarryTheReasonAndItsExitCode) {
  World world(3, {"steps", "fail:2"}, {.timeout_seconds = kTimeout});
  for (const RankResult& result : world.wait(60)) {
    EXPECT_EQ(result.exit_code, static_cast<int>(ExitCode::kCheckpoint)) << result.output;
    EXPECT_THAT(result.output, HasSubstr("ERROR rank 2 ("));
    EXPECT_THAT(result.output, HasSubstr("): no space for its part of the checkpoint"));
  }
}

TEST(Faults, NameARankThatLeavesEarly) {
  World world(3, {"steps", "return:1"}, {.timeout_seconds = kTimeout});
  ASSERT_TRUE(world.rank(1).wait_for_output("1: now", 60));
  expect_named(world, 1, "rank 1 (");
  EXPECT_THAT(world.rank(0).output(), HasSubstr("it left after 21 calls"));
}

// --- the start

std::map<std::string, std::string> environment(int rank, int size, int port, double timeout = 3) {
  return {{"RANK", std::to_string(rank)},
          {"WORLD_SIZE", std::to_string(size)},
          {"LOCAL_RANK", std::to_string(rank)},
          {"MASTER_ADDR", "127.0.0.1"},
          {"MASTER_PORT", std::to_string(port)},
          {"OMP_NUM_THREADS", "1"},
          {"NANOCHAT_DIST_TIMEOUT", std::to_string(timeout)}};
}

// A program of others that listens, and answers or not.
class Listener {
 public:
  Listener() {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (::bind(fd_, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(fd_, 10) != 0 ||
        ::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      throw std::runtime_error("cannot listen");
    }
    port_ = ntohs(address.sin_port);
  }
  ~Listener() { ::close(fd_); }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  int port() const { return port_; }

 private:
  int fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int port_ = 0;
};

void expect_refused(RankProcess& rank, ExitCode code, const std::string& message, double at_most_seconds) {
  const RankResult result = rank.wait(at_most_seconds);
  EXPECT_EQ(result.exit_code, static_cast<int>(code)) << result.output;
  EXPECT_THAT(result.output, HasSubstr("ERROR "));
  EXPECT_THAT(result.output, HasSubstr(message));
  EXPECT_THAT(result.output, Not(HasSubstr("frame #"))) << "c10d's stack traces";
}

TEST(Start, RefusesATakenPort) {
  const Listener other;
  RankProcess rank({"work"}, environment(0, 2, other.port()));
  expect_refused(rank, ExitCode::kUsage, "MASTER_PORT " + std::to_string(other.port()) + " is taken by another program on ",
                 20);
}

TEST(Start, RefusesAPortThatAnotherProgramAnswers) {
  const Listener other;
  RankProcess rank({"work"}, environment(1, 2, other.port()));
  expect_refused(rank, ExitCode::kUsage, "is not rank 0 of a run", 30);
}

TEST(Start, RefusesAnAddressOfAnotherMachine) {
  auto variables = environment(0, 2, testing::free_port());
  variables["MASTER_ADDR"] = "192.0.2.1";  // reserved for documentation (RFC 5737)
  RankProcess rank({"work"}, variables);
  expect_refused(rank, ExitCode::kUsage, "MASTER_ADDR 192.0.2.1 is no address of ", 20);
}

TEST(Start, RefusesANameThatIsNotFound) {
  for (const int number : {0, 1}) {
    auto variables = environment(number, 2, testing::free_port());
    variables["MASTER_ADDR"] = "no-such-host.invalid";
    RankProcess rank({"work"}, variables);
    expect_refused(rank, ExitCode::kUsage, "MASTER_ADDR no-such-host.invalid", 30);
  }
}

TEST(Start, SaysWhereRankZeroWasLookedFor) {
  const int port = testing::free_port();
  RankProcess rank({"work"}, environment(1, 2, port));
  expect_refused(rank, ExitCode::kOther, "rank 0 cannot be reached at 127.0.0.1:" + std::to_string(port), 20);
}

TEST(Start, NamesRanksThatDoNotCome) {
  const int port = testing::free_port();
  RankProcess zero({"work"}, environment(0, 4, port, 8)), two({"work"}, environment(2, 4, port, 30));
  expect_refused(zero, ExitCode::kOther,
                 "2 of 4 ranks did not come to 127.0.0.1:" + std::to_string(port) + " within 8 s: rank 1, 3", 30);
  expect_refused(two, ExitCode::kOther, "2 of 4 ranks did not come", 30);
}

TEST(Start, RefusesTheSameRankTwice) {
  const int port = testing::free_port();
  RankProcess zero({"work", "10"}, environment(0, 2, port, 20)), one({"work", "10"}, environment(1, 2, port, 20));
  ASSERT_TRUE(one.wait_for_output("joined", 60)) << one.output();
  RankProcess again({"work"}, environment(1, 2, port, 20));
  expect_refused(again, ExitCode::kUsage, "is the second process that is rank 1 of 2 at 127.0.0.1:", 20);
  for (RankProcess* rank : {&zero, &one}) {
    const RankResult result = rank->wait(30);
    EXPECT_EQ(result.exit_code, 0) << "the run itself goes on: " << result.output;
  }
}

TEST(Start, RefusesAnotherNumberOfRanks) {
  const int port = testing::free_port();
  RankProcess zero({"work"}, environment(0, 2, port, 20)), one({"work"}, environment(1, 3, port, 20));
  for (RankProcess* rank : {&zero, &one}) expect_refused(*rank, ExitCode::kUsage, "the world size is 3, rank 0 has 2", 30);
}

}  // namespace
}  // namespace nanochat
