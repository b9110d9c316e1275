// Two network namespaces stand for two machines: they meet, train, and one of them is lost.
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "machines.h"
#include "many_processes.h"
#include "small_run.h"

namespace nanochat::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using Clock = std::chrono::steady_clock;

class Machines : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!machines_.missing().empty()) GTEST_SKIP() << machines_.missing();
    ASSERT_EQ(small_run().failure, "");
  }

  // `command` as so many processes on each machine.
  std::vector<std::unique_ptr<Program>> start(int processes, const Arguments& command) const {
    std::vector<std::unique_ptr<Program>> programs;
    for (const std::size_t machine : {0U, 1U}) {
      const Arguments options = {
          "--nnodes",      "2",    "--node-rank", std::to_string(machine), "--master-addr", machines_.address(0),
          "--master-port", "29500"};
      const Arguments words = joined(joined({"launch", "--nproc", std::to_string(processes), "--grace", std::to_string(kGrace)},
                                            options),
                                     joined({"--"}, command));
      programs.push_back(std::make_unique<Program>(words, ProgramSetting{.environment = kOneThread,
                                                                         .beside = machines_[machine].holder()}));
    }
    return programs;
  }

  static constexpr int kGrace = 5;
  TwoMachines machines_;
  TemporaryDirectory folder_;
};

TEST_F(Machines, TrainAsOneProcessDoes) {
  constexpr int kSteps = 30;
  const ProgramResult one = run(1, pretraining(folder_ / "one", kSteps));
  ASSERT_EQ(one.exit_code, 0) << one.err;
  for (const auto& program : start(2, pretraining(folder_ / "two", kSteps))) {
    const ProgramResult result = program->wait();
    ASSERT_EQ(result.exit_code, 0) << result.err;
  }
  expect_same_figures(folder_ / "one", folder_ / "two", "loss", kSteps);
  expect_same_figures(folder_ / "one", folder_ / "two", "validation_bpb", 1);
  EXPECT_THAT(read_file(folder_ / "two/log.rank-3.txt"), HasSubstr("process 3 of 4"));
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_TRUE(fs::exists(checkpoint(folder_ / "two", kSteps) /
                           ("optimizer.rank-" + std::to_string(rank) + "-of-4.safetensors")));
  }
}

// What goes through the cable is what `sent_bytes` counts, up to how Gloo reduces: a ring adds up the parts of a tensor, and
// the owner then collects those that others have. Of two ranks the owner sends half of a tensor and the other all of it, where
// the formula has half for each.
TEST_F(Machines, SendWhatTheFormulaSays) {
  constexpr double kSteps = 30, kGradientsOfGloo = 1.5, kHeaders = 1.1;
  const std::int64_t before = machines_.bytes_sent();
  for (const auto& program : start(1, pretraining(folder_ / "run", static_cast<int>(kSteps), {"--eval-interval", "0"}))) {
    const ProgramResult result = program->wait();
    ASSERT_EQ(result.exit_code, 0) << result.err;
  }
  const std::vector<double> counted = figures(folder_ / "run", "sent_bytes");
  ASSERT_EQ(counted.size(), static_cast<std::size_t>(kSteps));
  const auto sent = static_cast<double>(machines_.bytes_sent() - before) / kSteps;
  const double formula = 2 * counted.back();  // of both ranks: as many bytes of gradients as of weights, in float32
  RecordProperty("bytes through the cable, of the formula", std::to_string(sent / formula));
  EXPECT_GE(sent, formula);
  EXPECT_LE(sent, kHeaders * formula * (kGradientsOfGloo + 1) / 2);
}

// And the run goes on from its last checkpoint, to the figures of a run that lost nobody, bit for bit.
TEST_F(Machines, LosingOneEndsTheOther) {
  constexpr int kSteps = 120;
  constexpr double kTimeout = 8, kSlack = 7;
  const Arguments options = {"--dist-timeout", std::to_string(kTimeout), "--checkpoint-interval", "5", "--keep-last", "0"};
  const fs::path output = folder_ / "lost";
  {
    const auto programs = start(2, pretraining(output, kSteps, options));
    ASSERT_TRUE(comes_true([&] { return fs::exists(checkpoint(output, 5)); }));
    machines_.set_cable(false);
    const auto start_of_loss = Clock::now();
    const ProgramResult here = programs[0]->wait();
    EXPECT_LT(std::chrono::duration<double>(Clock::now() - start_of_loss).count(), kTimeout + kGrace + kSlack);
    EXPECT_NE(here.exit_code, 0);
    EXPECT_THAT(here.err, AllOf(AnyOf(HasSubstr("rank 2 (machine-1, process "), HasSubstr("rank 3 (machine-1, process ")),
                                HasSubstr("gave no sign of life")));
    const ProgramResult there = programs[1]->wait();
    EXPECT_LT(std::chrono::duration<double>(Clock::now() - start_of_loss).count(), kTimeout + kGrace + kSlack);
    EXPECT_NE(there.exit_code, 0);
    EXPECT_THAT(there.err, HasSubstr("10.77.0.1:29500")) << "what it cannot reach";
    for (int rank = 0; rank < 4; ++rank) EXPECT_TRUE(processes_of(output, rank).empty()) << "rank " << rank;
    EXPECT_LT(figures(output, "loss").size(), static_cast<std::size_t>(kSteps));
  }
  machines_.set_cable(true);
  for (const auto& program : start(2, pretraining(output, kSteps, joined(options, {"--resume", "latest"})))) {
    const ProgramResult result = program->wait();
    ASSERT_EQ(result.exit_code, 0) << result.err;
  }
  const fs::path undisturbed = folder_ / "undisturbed";
  const ProgramResult whole = run(4, pretraining(undisturbed, kSteps, options));
  ASSERT_EQ(whole.exit_code, 0) << whole.err;
  EXPECT_EQ(figures(output, "loss"), figures(undisturbed, "loss"));
  EXPECT_TRUE(read_file(checkpoint(output, kSteps) / "model.safetensors") ==
              read_file(checkpoint(undisturbed, kSteps) / "model.safetensors"));
}

// Nobody at the address, and a rank 0 that is there but elsewhere.
TEST_F(Machines, SayWhomTheyWaitFor) {
  const Arguments command = pretraining(folder_ / "run", 5, {"--dist-timeout", "4"});
  const Arguments options = {"launch",        "--nproc", "1", "--nnodes", "2", "--master-addr", machines_.address(0),
                             "--master-port", "29500"};
  Program first(joined(joined(options, {"--node-rank", "0", "--"}), command),
                {.environment = kOneThread, .beside = machines_[0].holder()});
  const ProgramResult missing = first.wait();
  EXPECT_NE(missing.exit_code, 0);
  EXPECT_THAT(missing.err, HasSubstr("1 of 2 ranks did not come to 10.77.0.1:29500 within 4 s: rank 1"));
  Program second(joined(joined(options, {"--node-rank", "1", "--"}), command),
                 {.environment = kOneThread, .beside = machines_[1].holder()});
  const ProgramResult unreachable = second.wait();
  EXPECT_NE(unreachable.exit_code, 0);
  EXPECT_THAT(unreachable.err, HasSubstr("10.77.0.1:29500"));
}

}  // namespace
}  // namespace nanochat::testing
