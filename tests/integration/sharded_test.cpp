// Training with all weights divided among the processes (--shard full): the whole program.
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "many_processes.h"

namespace nanochat::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

const Arguments kFull{"--shard", "full"};

class Sharded : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(small_run().failure, ""); }

  // Deep enough that layers take turns in a buffer.
  Arguments deep(const std::string& name, int steps, const Arguments& more = {}) const {
    return pretraining(folder_ / name, steps, joined({"--depth", "4"}, more));
  }
  static void succeed(int processes, const Arguments& command) {
    const ProgramResult result = run(processes, command);
    ASSERT_EQ(result.exit_code, 0) << result.err;
  }
  void expect_same(const std::string& one, const std::string& other, int steps) const {
    expect_same_figures(folder_ / one, folder_ / other, "loss", static_cast<std::size_t>(steps));
  }
  TemporaryDirectory folder_;
};

// Validation and samples need weights while no step is taken; two processes have two micro-batches each.
TEST_F(Sharded, PretrainAsWithoutSharding) {
  constexpr int kSteps = 12;
  const Arguments judged = {"--eval-interval", "6", "--sample-interval", "6"};
  succeed(2, deep("optimizer", kSteps, judged));
  succeed(2, deep("full", kSteps, joined(kFull, judged)));
  succeed(2, deep("recomputed", kSteps, joined({"--shard", "full", "--recompute"}, judged)));
  for (const char* name : {"full", "recomputed"}) {
    expect_same("optimizer", name, kSteps);
    expect_same_figures(folder_ / "optimizer", folder_ / name, "validation_bpb", 3);
    EXPECT_THAT(read_file(folder_ / name / "log.txt"),
                AllOf(HasSubstr("which share weights, gradients"), HasSubstr("sample: ")));
  }
  EXPECT_EQ(figures(folder_ / "full", "loss"), figures(folder_ / "recomputed", "loss"));

  // What is sent is what --plan says; a validation and samples come on top.
  const ProgramResult planned = run_program(deep("full", kSteps, {"--shard", "full", "--plan", "--json", "--world-size", "2"}));
  ASSERT_EQ(planned.exit_code, 0) << planned.err;
  const auto plan = nlohmann::json::parse(planned.out);
  const std::vector<double> sent = figures(folder_ / "full", "sent_bytes");
  ASSERT_EQ(sent.size(), static_cast<std::size_t>(kSteps));
  for (const int step : {2, 3, 4, 8}) {
    EXPECT_NEAR(sent[static_cast<std::size_t>(step)], plan.at("sent_bytes").get<double>(), 2000) << step;
  }
}

TEST_F(Sharded, PretrainTheNewestRecipe) {
  constexpr int kSteps = 8;
  const Arguments recipe = {"--recipe", "nanochat-2026-07", "--warmup-steps", "0", "--total-batch-size", "768"};
  succeed(1, deep("one", kSteps, recipe));
  succeed(3, deep("three", kSteps, joined(recipe, kFull)));
  expect_same("one", "three", kSteps);
  expect_same_figures(folder_ / "one", folder_ / "three", "validation_bpb", 1);
}

// A checkpoint says nothing of how weights were divided.
TEST_F(Sharded, ResumeInEitherMode) {
  constexpr int kPart = 4;
  succeed(1, deep("one", 5 * kPart));
  int steps = 0;
  struct Part {
    int processes;
    Arguments more;
  };
  for (const Part& part : {Part{2, kFull}, Part{4, {"--shard", "optimizer"}}, Part{4, {"--shard", "full", "--recompute"}},
                           Part{1, kFull}, Part{2, kFull}}) {
    steps += kPart;
    const Arguments resume = steps > kPart ? Arguments{"--resume", "latest"} : Arguments{};
    succeed(part.processes, deep("changing", steps, joined(part.more, resume)));
  }
  expect_same("one", "changing", 5 * kPart);
}

TEST_F(Sharded, FinetuneAndReward) {
  for (const auto& [stage, score] :
       std::vector<std::pair<std::string, std::string>>{{"midtrain", "validation_bpb"}, {"sft", "validation_loss"}}) {
    const auto tuning = [&](const std::string& name, const Arguments& more) {
      return joined({stage, "--base-model", small_run().run, "--mixture", R"([{"task": "toy-spelling", "size": 100}])",
                     "--output-dir", folder_ / name, "--num-iterations", "6", "--device-batch-size", "2", "--total-batch-size",
                     "512", "--eval-interval", "3", "--eval-tokens", "1024", "--quiet"},
                    joined(kInFloat32, more));
    };
    succeed(2, tuning(stage + "-optimizer", {}));
    succeed(2, tuning(stage, kFull));
    expect_same(stage + "-optimizer", stage, 6);
    expect_same_figures(folder_ / (stage + "-optimizer"), folder_ / stage, score, 3);
  }
  // Answers of unequal lengths: each process makes its own number of passes, and has its own number of micro-batches.
  const auto rewarded = [&](const std::string& name, const Arguments& more) {
    return joined({"rl",
                   "--base-model",
                   folder_ / "sft",
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
                   "6",
                   "--eval-examples",
                   "5",
                   "--eval-samples",
                   "2",
                   "--output-dir",
                   folder_ / name,
                   "--quiet"},
                  joined(kInFloat32, more));
  };
  succeed(2, rewarded("rl-optimizer", {}));
  succeed(2, rewarded("rl", kFull));
  expect_same("rl-optimizer", "rl", 3);
  EXPECT_EQ(figures(folder_ / "rl", "reward"), figures(folder_ / "rl-optimizer", "reward"));
  EXPECT_EQ(figures(folder_ / "rl", "pass@2"), figures(folder_ / "rl-optimizer", "pass@2"));
}

// A model that does not fit one device trains on two, with the losses that one device with more memory gets.
TEST_F(Sharded, TrainWhatOneDeviceHasNoRoomFor) {
  constexpr int kSteps = 2;
  const Arguments model = {"--depth", "6", "--device-batch-size", "1", "--total-batch-size", "128", "--recompute"};
  const auto memory = [&](int processes, const Arguments& more) {
    const ProgramResult planned = run_program(
        deep("plan", kSteps, joined(model, joined({"--plan", "--json", "--world-size", std::to_string(processes)}, more))));
    EXPECT_EQ(planned.exit_code, 0) << planned.err;
    return nlohmann::json::parse(planned.out).at("memory_bytes").get<double>();
  };
  const double whole = memory(1, {}), divided = memory(2, {}), sharded = memory(2, kFull);
  EXPECT_LT(sharded, 0.95 * divided);
  const Arguments limit = {"--memory-limit", std::to_string(1e-9 * (sharded + divided) / 2)};
  succeed(1, deep("one", kSteps, model));
  for (const int processes : {1, 2}) {
    const ProgramResult refused = run(processes, deep("refused", kSteps, joined(model, limit)));
    EXPECT_EQ(refused.exit_code, 2) << refused.err;
    EXPECT_THAT(refused.err, HasSubstr("training needs about"));
    if (processes > 1) {
      EXPECT_THAT(refused.err, HasSubstr("with --shard full, "));
    }
  }
  EXPECT_GT(whole, divided);
  succeed(2, deep("two", kSteps, joined(model, joined(limit, kFull))));
  expect_same("one", "two", kSteps);
}

TEST_F(Sharded, BenchTakesTheSameSteps) {
  const auto bench = [&](int processes, const std::string& micro_batches, const Arguments& more) {
    const ProgramResult result = run(
        processes,
        joined({"bench",        "train",   "--depth", "3",       "--sequence-len", "32",  "--device-batch-size", "2",
                "--vocab-size", "256",     "--steps", "2",       "--warmup",       "1",   "--micro-batches",     micro_batches,
                "--json",       "--quiet", "--dtype", "float32", "--device",       "cpu", "--threads",           "1"},
               more));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return nlohmann::json::parse(result.out);
  };
  const auto one = bench(1, "2", {}), two = bench(2, "1", kFull);
  EXPECT_NEAR(one.at("loss").get<double>(), two.at("loss").get<double>(), kLossTolerance);
  EXPECT_EQ(two.at("world_size"), 2);
  EXPECT_EQ(two.at("shard"), "full");
}

}  // namespace
}  // namespace nanochat::testing
