// kill -9 at seeded random moments, then resumed: the files of a run that was never killed, byte for byte.
//
// NANOCHAT_KILLS is how many kills each test does; scripts/check.sh --faults sets 20.
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <map>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "core/random.h"
#include "small_run.h"

namespace nanochat::testing {
namespace {

namespace fs = std::filesystem;
using Arguments = std::vector<std::string>;
using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

int kills() {
  const char* text = std::getenv("NANOCHAT_KILLS");
  return text == nullptr ? 3 : std::max(1, std::atoi(text));
}

// Where LibTorch's sums do not depend on how many threads share them.
const std::map<std::string, std::string> kOneThread = {{"OMP_NUM_THREADS", "1"}};

// Seconds of a run to the end: until `sign` appears, with which the work begins, and from there.
struct Times {
  double before = 0.0, working = 0.0;
};

template <class Condition>
double seconds_until(Program& program, Condition condition) {
  const auto start = Clock::now();
  while (!condition() && program.running()) std::this_thread::sleep_for(std::chrono::microseconds(200));
  return Seconds(Clock::now() - start).count();
}

Times time_of(const Arguments& arguments, const fs::path& sign) {
  Program program(arguments, {.environment = kOneThread});
  Times times;
  times.before = seconds_until(program, [&] { return fs::exists(sign); });
  times.working = seconds_until(program, [] { return false; });
  const ProgramResult result = program.wait();
  EXPECT_EQ(result.exit_code, 0) << result.err;
  return times;
}

// Kills at a random moment, of the work or, one time in five, of all. True when it was still running.
bool kill_at_random(const Arguments& arguments, const fs::path& sign, const Times& times, Rng& rng) {
  const bool anywhere = rng.below(5) == 0;
  const double moment = rng.uniform() * (anywhere ? times.before + times.working : times.working);
  Program program(arguments, {.environment = kOneThread});
  if (!anywhere) seconds_until(program, [&] { return fs::exists(sign); });
  seconds_until(program, [&, end = Clock::now() + Seconds(moment)] { return Clock::now() >= end; });
  program.send(SIGKILL);
  const ProgramResult result = program.wait();
  EXPECT_TRUE(result.exit_code == 0 || result.exit_code == 128 + SIGKILL) << result.exit_code << ": " << result.err;
  return result.exit_code == 128 + SIGKILL;
}

bool has_hidden_entry(const fs::path& folder, const std::string& prefix = ".", const std::string& part = "") {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(prefix) && name.find(part) != std::string::npos) return true;
  }
  return false;
}

// A checkpoint is being written, or a kill left one.
bool is_writing(const fs::path& checkpoints) { return has_hidden_entry(checkpoints, ".step-", ".tmp-"); }

class Kill : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(small_run().failure, ""); }
  TemporaryDirectory folder_;
  Rng rng_{20251123};
};

std::map<std::string, std::string> contents(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(folder)) files[entry.path().filename().string()] = read_file(entry.path());
  return files;
}

TEST_F(Kill, DataPrepareGoesOnToTheSameFiles) {
  ASSERT_EQ(run_program({"data", "toy", "--output-dir", folder_ / "toy", "--bytes", "3000000", "--quiet"}).exit_code, 0);
  const auto arguments = [&](const std::string& output) {
    return Arguments{"data",
                     "prepare",
                     "--data-dir",
                     folder_ / "toy/toy.jsonl",
                     "--tokenizer",
                     small_run().tokenizer,
                     "--output-dir",
                     folder_ / output,
                     "--tokens-per-shard",
                     "15000",
                     "--resume",
                     "--quiet"};
  };
  const Times times = time_of(arguments("whole"), folder_ / "whole/preparing.json");
  const auto whole = contents(folder_ / "whole");
  ASSERT_GT(whole.size(), 30u) << "shards";
  int done = 0, kept_shards = 0;
  for (int attempt = 0; done < kills() && attempt < 10 * kills(); ++attempt) {
    const std::string name = "killed-" + std::to_string(attempt);
    const fs::path sign = folder_ / name / "preparing.json";
    if (!kill_at_random(arguments(name), sign, times, rng_)) continue;
    ++done;
    // Every other one is killed again while it resumes.
    if (rng_.below(2) == 0) kill_at_random(arguments(name), sign, times, rng_);
    if (fs::exists(folder_ / name)) {
      for (const auto& entry : fs::directory_iterator(folder_ / name))
        kept_shards += entry.path().extension() == ".tok" ? 1 : 0;
    }
    const ProgramResult resumed = run_program(arguments(name));
    ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
    ASSERT_EQ(contents(folder_ / name), whole) << "attempt " << attempt;
    fs::remove_all(folder_ / name);
  }
  EXPECT_EQ(done, kills()) << "the program ended before it could be killed";
  std::printf("%d kills in runs of %.1f s, %.1f of %zu files kept on average\n", done, times.working,
              static_cast<double>(kept_shards) / std::max(1, done), whole.size());
}

class KillTraining : public Kill {
 protected:
  // A command that trains into the folder of the run `output`, and what else it is given; resumed where there is a run.
  Arguments with_output(Arguments all, const std::string& output, const Arguments& more) const {
    all.insert(all.end(), {"--output-dir", folder_ / output});
    all.insert(all.end(), more.begin(), more.end());
    if (fs::exists(folder_ / output / "checkpoints")) all.insert(all.end(), {"--resume", "latest"});
    return all;
  }
  // All that must not depend on what happened on the way.
  nlohmann::json outcome(const std::string& output) const {
    const fs::path run = folder_ / output;
    auto state = nlohmann::json::parse(read_file(run / "checkpoints/latest/training_state.json"));
    EXPECT_GT(state["loop"].at("training_seconds"), 0.0);
    state["loop"].erase("training_seconds");
    state.erase("checksum");
    nlohmann::json losses = nlohmann::json::object();
    std::ifstream metrics(run / "metrics.jsonl");
    for (std::string line; std::getline(metrics, line);) {
      const auto row = nlohmann::json::parse(line);
      for (const char* key : {"loss", "grad_norm", "reward", "validation_bpb", "validation_loss", "pass@1"}) {
        if (!row.contains(key)) continue;
        auto& values = losses[key + std::to_string(row.at("step").get<int>())];
        EXPECT_TRUE(values.is_null()) << "a step stands twice: " << line;
        values = row.at(key);
      }
    }
    nlohmann::json names = nlohmann::json::array();
    for (const auto& entry : fs::directory_iterator(run / "checkpoints")) names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    const fs::path best = run / "checkpoints/best";
    return {{"state", state},
            {"losses", losses},
            {"checkpoints", names},
            {"best", fs::exists(best) ? fs::read_symlink(best).string() : ""}};
  }
  // What stands is whole, whatever the moment.
  void expect_whole_checkpoints(const std::string& output) const {
    const fs::path checkpoints = folder_ / output / "checkpoints";
    if (!fs::exists(checkpoints)) return;
    for (const auto& entry : fs::directory_iterator(checkpoints)) {
      if (entry.path().filename().string().starts_with('.')) continue;
      const ProgramResult result = run_program({"info", entry.path(), "--verify"});
      EXPECT_EQ(result.exit_code, 0) << entry.path() << ": " << result.err;
      EXPECT_THAT(result.out, ::testing::HasSubstr("have the SHA-256"));
    }
  }
  // Kills the command of arguments(output) `count` times at random moments of its work, each time in a new run.
  template <class MakeArguments>
  void kill_and_resume(const MakeArguments& arguments, int count) {
    const Times times = time_of(arguments("whole"), folder_ / "whole/metrics.jsonl");
    const auto whole = outcome("whole");
    EXPECT_NE(whole.at("best"), "");
    int done = 0, restarts = 0;
    for (int attempt = 0; done < count && attempt < 10 * count; ++attempt) {
      const std::string name = "killed-" + std::to_string(attempt);
      const fs::path sign = folder_ / name / "metrics.jsonl";
      if (!kill_at_random(arguments(name), sign, times, rng_)) continue;
      ++done;
      expect_whole_checkpoints(name);
      if (rng_.below(2) == 0) kill_at_random(arguments(name), sign, times, rng_);
      restarts += fs::exists(folder_ / name / "checkpoints/latest") ? 0 : 1;
      const ProgramResult resumed = Program(arguments(name), {.environment = kOneThread}).wait();
      ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
      ASSERT_EQ(outcome(name), whole) << "attempt " << attempt;
      EXPECT_FALSE(has_hidden_entry(folder_ / name) || has_hidden_entry(folder_ / name / "checkpoints"));
      fs::remove_all(folder_ / name);
    }
    EXPECT_EQ(done, count) << "the program ended before it could be killed";
    std::printf("%d kills in runs of %.1f s, %d before the first checkpoint\n", done, times.working, restarts);
  }
};

class KillPretrain : public KillTraining {
 protected:
  Arguments arguments(const std::string& output, const Arguments& more) const {
    return with_output(small_run().pretrain_arguments(folder_ / output), output, more);
  }
};

TEST_F(KillPretrain, GoesOnToTheSameWeights) {
  const Arguments more = {
      "--num-iterations", "40", "--checkpoint-interval", "3", "--keep-last", "2", "--eval-interval", "5", "--keep-best",
      "--log-interval",   "1"};
  kill_and_resume([&](const std::string& output) { return arguments(output, more); }, kills());
}

// The stages after pretraining: a kill of each, and as many as asked for when that is more.
class KillStages : public KillTraining {
 protected:
  void SetUp() override {
    KillTraining::SetUp();
    std::string chat;
    for (int i = 0; i < 400; ++i) {
      chat += R"({"messages":[{"role":"user","content":"After )" + std::to_string(i % 20) +
              R"(?"},{"role":"assistant","content":"It is )" + std::to_string(i % 20 + 1) + "\"}]}\n";
    }
    write_text(folder_ / "chat.jsonl", chat);
  }
  void kill_stage(const Arguments& command) {
    const Arguments more = {"--checkpoint-interval", "3", "--keep-last", "2", "--eval-interval", "5", "--keep-best",
                            "--log-interval",        "1", "--threads",   "1", "--workers",       "1", "--quiet"};
    kill_and_resume([&](const std::string& output) { return with_output(command, output, more); }, std::max(1, kills() / 3));
  }
};

TEST_F(KillStages, MidtrainGoesOnToTheSameWeights) {
  kill_stage({"midtrain", "--base-model", small_run().run, "--data-dir", folder_ / "chat.jsonl", "--num-iterations", "25"});
}

TEST_F(KillStages, SftGoesOnToTheSameWeights) {
  kill_stage({"sft", "--base-model", small_run().run, "--data-dir", folder_ / "chat.jsonl", "--num-iterations", "25",
              "--init-lr-frac", "0.5"});
}

TEST_F(KillStages, RlGoesOnToTheSameWeights) {
  const fs::path taught = folder_ / "taught";
  ASSERT_EQ(run_program({"sft", "--base-model", small_run().run, "--data-dir", folder_ / "chat.jsonl", "--num-iterations", "10",
                         "--output-dir", taught, "--quiet"})
                .exit_code,
            0);
  kill_stage({"rl", "--base-model", taught, "--mixture", R"([{"task": "toy-spelling"}])", "--validation-mixture",
              R"([{"task": "toy-spelling", "split": "test"}])", "--num-iterations", "12", "--examples-per-step", "2",
              "--num-samples", "4", "--max-new-tokens", "12", "--eval-examples", "4", "--eval-samples", "2"});
}

TEST_F(KillPretrain, InsideTheWriteOfACheckpoint) {
  // Checkpoints of 26 MB, one a step.
  const Arguments more = {"--depth",
                          "4",
                          "--n-embd",
                          "256",
                          "--n-head",
                          "4",
                          "--num-iterations",
                          "6",
                          "--total-batch-size",
                          "512",
                          "--checkpoint-interval",
                          "1",
                          "--keep-last",
                          "2"};
  time_of(arguments("whole", more), folder_ / "whole/metrics.jsonl");
  const auto whole = outcome("whole");
  int done = 0;
  double write_seconds = 0.2;  // how long a write takes; learnt below
  for (int attempt = 0; done < kills() && attempt < 10 * kills(); ++attempt) {
    const std::string name = "killed-" + std::to_string(attempt);
    const fs::path checkpoints = folder_ / name / "checkpoints";
    const std::uint64_t which = rng_.below(5);  // of its writes
    {
      Program program(arguments(name, more), {.environment = kOneThread});
      const auto wait_for = [&](bool writing) {
        const auto start = Clock::now();
        while (program.running() && is_writing(checkpoints) != writing) {
          std::this_thread::sleep_for(std::chrono::microseconds(100));
        }
        return Seconds(Clock::now() - start).count();
      };
      for (std::uint64_t i = 0; i < which; ++i) {
        wait_for(true);
        write_seconds = wait_for(false);
      }
      wait_for(true);
      std::this_thread::sleep_for(Seconds(rng_.uniform() * write_seconds));
      program.send(SIGKILL);
      program.wait();
    }
    const bool inside = is_writing(checkpoints);
    if (inside) {
      ++done;
      expect_whole_checkpoints(name);
      const ProgramResult resumed = Program(arguments(name, more), {.environment = kOneThread}).wait();
      ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
      ASSERT_EQ(outcome(name), whole) << "attempt " << attempt;
      EXPECT_FALSE(has_hidden_entry(checkpoints)) << "what the kill left must be gone";
    }
    fs::remove_all(folder_ / name);
  }
  EXPECT_EQ(done, kills()) << "no kill hit a write";
  std::printf("%d kills inside writes of %.0f ms\n", done, 1e3 * write_seconds);
}

}  // namespace
}  // namespace nanochat::testing
