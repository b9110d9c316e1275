// --dtype auto goes by measured rates: here by rates that the test puts into the cache.
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "small_run.h"

namespace nanochat::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class Precision : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(small_run().failure, "");
    ASSERT_EQ(info().at("cpu_kernels").is_string(), true);  // fills the cache
  }
  ProgramResult run(const std::vector<std::string>& arguments, std::map<std::string, std::string> more = {}) const {
    more["XDG_CACHE_HOME"] = (folder_ / "cache").string();
    return run_program(arguments, "", more);
  }
  json info(const std::map<std::string, std::string>& more = {}) const {
    const ProgramResult result = run({"info", "--json"}, more);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return json::parse(result.out);
  }
  // Writes rates for `workload` ("training", "decoding") in the place of those that were measured.
  void set_rates(const std::string& workload, double float32, double bfloat16) const {
    int files = 0;
    for (const auto& entry : fs::directory_iterator(folder_ / "cache/nanochat")) {
      if (!entry.path().filename().string().starts_with("precision-" + workload + "-")) continue;
      json rates = json::parse(read_file(entry.path()));
      rates["float32"] = float32;
      rates["bfloat16"] = bfloat16;
      write_text(entry.path(), rates.dump());
      ++files;
    }
    EXPECT_EQ(files, 1);
  }
  std::string log_of(const fs::path& run) const { return read_file(run / "log.txt"); }
  // As small_run() trains, with every thread of the machine: for those the rates are.
  std::vector<std::string> pretrain(const std::vector<std::string>& more) const {
    auto arguments = small_run().pretrain_arguments(folder_ / "run");
    std::erase(arguments, "--quiet");  // the log names the precision
    arguments.insert(arguments.end(), {"--threads", "0"});
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  TemporaryDirectory folder_;
};

TEST_F(Precision, InfoNamesTheRatesAndTheChoice) {
  const json precision = info().at("precision");
  for (const char* workload : {"training", "decoding"}) {
    const json& found = precision.at(workload);
    EXPECT_GT(found.at("float32").get<double>(), 1e6);
    EXPECT_GT(found.at("bfloat16").get<double>(), 1e6);
    EXPECT_EQ(found.at("choice"), found.at("bfloat16") >= found.at("float32") ? "bfloat16" : "float32");
  }
  EXPECT_EQ(precision.at("cache"), (folder_ / "cache/nanochat").string());
  EXPECT_EQ(info(), info()) << "measured once";

  set_rates("training", 257e9, 135e9);  // as on a Xeon without AMX, under a hypervisor
  set_rates("decoding", 10e9, 20e9);
  const json now = info().at("precision");
  EXPECT_EQ(now.at("training").at("choice"), "float32");
  EXPECT_EQ(now.at("decoding").at("choice"), "bfloat16");
  EXPECT_THAT(run({"info"}).out,
              AllOf(HasSubstr("float32 with --dtype auto: 257 GFLOP/s in float32, 135 in bfloat16"),
                    HasSubstr("bfloat16 with --dtype auto: 10 billion weights/s in float32, 20 in bfloat16")));
}

TEST_F(Precision, OtherKernelsAreMeasuredAnew) {
  set_rates("training", 1e9, 2e9);
  EXPECT_EQ(info().at("precision").at("training").at("float32"), 1e9);
  EXPECT_NE(info({{"NANOCHAT_CPU", "baseline"}}).at("precision").at("training").at("float32"), 1e9);
  EXPECT_NE(info({{"ATEN_CPU_CAPABILITY", "default"}}).at("precision").at("training").at("float32"), 1e9);
  EXPECT_EQ(info().at("precision").at("training").at("float32"), 1e9);
}

TEST_F(Precision, EveryCommandChoosesAlike) {
  set_rates("training", 1e9, 2e9);
  set_rates("decoding", 2e9, 1e9);
  const auto dtype = [](const ProgramResult& result) {
    EXPECT_EQ(result.exit_code, 0) << result.err;
    const std::string last = result.out.substr(result.out.rfind('\n', result.out.size() - 2) + 1);
    return json::parse(last).at("dtype").get<std::string>();
  };
  const std::vector<std::string> shape = {
      "--depth", "1", "--sequence-len", "32",     "--device-batch-size", "1", "--vocab-size", "256",
      "--steps", "1", "--json",         "--quiet"};
  const auto bench = [&](const char* what, const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {"bench", what};
    arguments.insert(arguments.end(), shape.begin(), shape.end());
    arguments.insert(arguments.end(), more.begin(), more.end());
    return dtype(run(arguments));
  };
  EXPECT_EQ(bench("train"), "bfloat16");
  EXPECT_EQ(bench("infer"), "float32");
  EXPECT_EQ(bench("train", {"--dtype", "float32"}), "float32") << "what is given decides";
  EXPECT_EQ(bench("infer", {"--dtype", "bfloat16"}), "bfloat16");
  const auto eval = run({"eval", small_run().run, "--benchmarks", "bpb", "--data-dir", small_run().shards, "--eval-tokens",
                         "512", "--output-dir", folder_ / "bpb", "--json", "--quiet"});
  ASSERT_EQ(eval.exit_code, 0) << eval.err;
  EXPECT_EQ(json::parse(eval.out).at("settings").at("dtype"), "bfloat16") << "texts that are scored, as in training";
  const auto written = run({"eval", small_run().run, "--benchmarks", "toy-facts", "--max-per-task", "1", "--max-tokens", "2",
                            "--output-dir", folder_ / "facts", "--json", "--quiet"});
  ASSERT_EQ(written.exit_code, 0) << written.err;
  EXPECT_EQ(json::parse(written.out).at("settings").at("dtype"), "float32") << "answers that the model writes";
}

// Trained where one precision is faster, resumed where the other one is.
TEST_F(Precision, ARunGoesOnWhereTheChoiceIsAnother) {
  for (const auto& [first, second] : {std::pair{"float32", "bfloat16"}, {"bfloat16", "float32"}}) {
    fs::remove_all(folder_ / "run");
    const auto prefer = [this](const std::string& dtype) {
      set_rates("training", dtype == "float32" ? 2e9 : 1e9, dtype == "float32" ? 1e9 : 2e9);
    };
    prefer(first);
    const ProgramResult before = run(pretrain({"--num-iterations", "6"}));
    ASSERT_EQ(before.exit_code, 0) << before.err;
    EXPECT_THAT(log_of(folder_ / "run"), AllOf(HasSubstr(std::string(", ") + first + ", "), Not(HasSubstr(second))));
    const json state = json::parse(read_file(folder_ / "run/checkpoints/latest/training_state.json"));
    EXPECT_EQ(state.at("config").at("dtype"), "auto");
    prefer(second);
    const ProgramResult after = run(pretrain({"--num-iterations", "12", "--resume", "latest"}));
    ASSERT_EQ(after.exit_code, 0) << after.err;
    EXPECT_THAT(log_of(folder_ / "run"), HasSubstr(std::string(", ") + second + ", "));
    EXPECT_THAT(log_of(folder_ / "run"), HasSubstr("computed until here by CPU"));
    EXPECT_EQ(json::parse(run({"info", folder_ / "run", "--json"}).out).at("weights_dtype"), "F32");

    // Losses are those of the run that small_run() made, to what bfloat16 resolves.
    const auto losses = [](const fs::path& run) {
      std::ifstream file(run / "metrics.jsonl");
      std::vector<double> found;
      for (std::string line; std::getline(file, line);) {
        const json row = json::parse(line);
        if (row.contains("loss")) found.push_back(row.at("loss"));
      }
      return found;
    };
    const auto mixed = losses(folder_ / "run");
    ASSERT_EQ(mixed.size(), 12U);
    EXPECT_LT(mixed.back(), mixed[5]) << "it goes on learning";
  }
}

TEST_F(Precision, ACacheThatCannotBeWrittenDoesNoHarm) {
  write_text(folder_ / "file", "in the way");
  const ProgramResult result = run_program({"info", "--json"}, "", {{"XDG_CACHE_HOME", (folder_ / "file").string()}});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.err, "");
}

}  // namespace
}  // namespace nanochat::testing
