// Ranks that are processes of their own, over Gloo on loopback: see testing_rank.cpp for what each does.
#include "distributed/communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <nlohmann/json.hpp>

#include "distributed/agree.h"
#include "distributed/testing.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using testing::RankResult;
using testing::World;

void expect_well(World world, double at_most_seconds = 60) {
  for (const RankResult& result : world.wait(at_most_seconds)) {
    EXPECT_EQ(result.exit_code, 0) << result.output;
    EXPECT_THAT(result.output, HasSubstr("done"));
  }
}

TEST(Communicator, IsANoOpAlone) {
  Communicator alone;
  EXPECT_TRUE(alone.alone());
  EXPECT_TRUE(alone.is_root());
  at::Tensor values = at::arange(6, at::kFloat);
  const at::Tensor before = values.clone();
  alone.all_reduce(values, ReduceOp::kMean).wait();
  alone.broadcast(values).wait();
  EXPECT_TRUE(values.equal(before));
  at::Tensor output = at::empty({2, 3});
  alone.reduce_scatter(values, output).wait();
  EXPECT_TRUE(output.view({6}).equal(before));
  output.zero_();
  alone.all_gather(values, output).wait();
  EXPECT_TRUE(output.view({6}).equal(before));
  alone.reduce_to_owners({{values, 0}}).wait();
  alone.spread_from_owners({{values, 0}}).wait();
  EXPECT_TRUE(values.equal(before));
  EXPECT_EQ(alone.share_text("said"), "said");
  EXPECT_EQ(alone.make_message_board(), nullptr);
  EXPECT_EQ(alone.bytes_sent(), 0);
  alone.barrier();
  alone.require_same("configuration", 1);
  alone.check();
  EXPECT_EQ(agree(alone, RankStatus::kEndOfData).status, RankStatus::kEndOfData);
  // A world of one needs no store either.
  EXPECT_EQ(Communicator(WorldConfig{}, {}).size(), 1);
}

TEST(Communicator, RefusesTensorsThatDoNotFit) {
  Communicator alone;
  at::Tensor small = at::empty({2}), large = at::empty({3});
  EXPECT_THROW(alone.reduce_scatter(large, small), c10::Error);
  EXPECT_THROW(alone.all_gather(large, small), c10::Error);
  EXPECT_THROW(alone.reduce_to_owners({{small, 1}}), c10::Error);
  EXPECT_THROW(alone.spread_from_owners({{small, -1}}), c10::Error);
  EXPECT_THROW(alone.broadcast(small, 1), c10::Error);
  EXPECT_THROW(alone.all_reduce(at::empty({2, 3}).t()), c10::Error);
}

class Collectives : public ::testing::TestWithParam<int> {};

TEST_P(Collectives, GiveWhatALocalComputationGives) { expect_well(World(GetParam(), {"collectives"})); }
TEST_P(Collectives, RoundOnceARank) { expect_well(World(GetParam(), {"rounding"})); }
TEST_P(Collectives, GoOnBeneathOtherWork) { expect_well(World(GetParam(), {"async"})); }
TEST_P(Collectives, ShareTexts) { expect_well(World(GetParam(), {"texts"})); }
TEST_P(Collectives, CountWhatIsSent) { expect_well(World(GetParam(), {"traffic"})); }
TEST_P(Collectives, AgreeOnOneStatus) { expect_well(World(GetParam(), {"agree"})); }

INSTANTIATE_TEST_SUITE_P(Ranks, Collectives, ::testing::Values(2, 3, 4));

TEST(Communicator, MeetsWhereRankZeroHasTheStore) { expect_well(World(3, {"agree"}, {.launcher_has_store = false})); }

// A barrier and a rank that is alive have no time-out.
TEST(Communicator, WaitsForARankThatWorksAlone) { expect_well(World(2, {"alone", "5"}, {.timeout_seconds = 3})); }

TEST(Communicator, NamesWhatDiffersInAConfiguration) {
  World world(3, {"same", "2"});
  for (const RankResult& result : world.wait(30)) {
    EXPECT_EQ(result.exit_code, static_cast<int>(ExitCode::kUsage)) << result.output;
    EXPECT_THAT(result.output, HasSubstr(": the same"));
    EXPECT_THAT(result.output, HasSubstr("ERROR rank 2 ("));
    EXPECT_THAT(result.output, HasSubstr("has another other configuration than rank 0: depth is 6, rank 0 has 4; "
                                         "extra is true, rank 0 has nothing"));
  }
}

TEST(Communicator, RefusesAnotherBuild) {
  World world(3, {"work"}, {.environment = {{"TEST_BUILD_OF_RANK_1", "1.0 (def)"}}});
  for (const RankResult& result : world.wait(30)) {
    EXPECT_EQ(result.exit_code, static_cast<int>(ExitCode::kUsage)) << result.output;
    EXPECT_THAT(result.output, HasSubstr("ERROR rank 1 ("));
    EXPECT_THAT(result.output, HasSubstr("the build is \"1.0 (def)\", rank 0 has \"1.0 (abc)\""));
  }
}

TEST(Communicator, SaysThatABuildHasNoGpus) {
  if (testing::has_nccl()) GTEST_SKIP() << "this build has them";
  World world(2, {"gpu"});
  for (const RankResult& result : world.wait(30)) {
    EXPECT_EQ(result.exit_code, static_cast<int>(ExitCode::kUsage)) << result.output;
    EXPECT_THAT(result.output, HasSubstr("this build has no CUDA backend"));
  }
}

}  // namespace
}  // namespace nanochat
