// A run in runs/ is known by its name to every command that takes a run or a checkpoint.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "small_run.h"

namespace nanochat::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class RunNames : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(small_run().failure, "");
    fs::current_path(folder_.path());
    fs::create_directory("runs");
    fs::copy(small_run().run, "runs/first", fs::copy_options::recursive | fs::copy_options::copy_symlinks);
  }
  void TearDown() override { fs::current_path(before_); }
  TemporaryDirectory folder_;
  fs::path before_ = fs::current_path();
};

TEST_F(RunNames, WorkWhereverAPathDoes) {
  const std::string spelling = R"([{"task": "toy-spelling", "size": 40}])";
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {"info", "first"},
           {"info", "first/checkpoints/step-000012", "--verify"},
           {"infer", "first", "--prompt", "The", "--max-tokens", "2"},
           {"eval", "first", "--data-dir", small_run().folder / "toy/quickstart_prompts.jsonl"},
           {"eval", "first", "--data-dir", small_run().folder / "toy/quickstart_prompts.jsonl", "--compare", "first"},
           {"report", "first"},
           {"export", "first", "--output", "exported"},
           {"export", "first", "--format", "reference", "--output", "reference"},
           {"sft", "--base-model", "first", "--mixture", spelling, "--num-iterations", "1", "--output-dir", "runs/chat",
            "--quiet"},
           {"midtrain", "--base-model", "first/checkpoints/latest", "--mixture", spelling, "--num-iterations", "1",
            "--output-dir", "runs/mid", "--quiet"},
       }) {
    const ProgramResult result = run_program(arguments);
    EXPECT_EQ(result.exit_code, 0) << arguments[0] << ": " << result.err;
  }
  EXPECT_TRUE(fs::exists("runs/first/report.html"));
  EXPECT_TRUE(fs::exists("runs/first/eval/step-000012/eval.json"));
  auto resumed = small_run().pretrain_arguments("runs/first");
  resumed.insert(resumed.end(), {"--resume", "first", "--num-iterations", "13"});
  const ProgramResult result = run_program(resumed);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(fs::read_symlink("runs/first/checkpoints/latest"), "step-000013");
}

TEST_F(RunNames, ThatAreUnknownAreLookedForInBothPlaces) {
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {"info", "second"},
           {"infer", "second", "--prompt", "The"},
           {"eval", "second", "--data-dir", small_run().folder / "toy/quickstart_prompts.jsonl"},
           {"report", "second"},
           {"export", "second", "--output", "exported"},
           {"serve", "second", "--port", "0"},
           {"sft", "--base-model", "second", "--mixture", R"([{"task": "toy-spelling"}])", "--output-dir", "runs/chat"},
       }) {
    const ProgramResult result = run_program(arguments);
    EXPECT_NE(result.exit_code, 0) << arguments[0];
    EXPECT_THAT(result.err, HasSubstr("there is no second, nor runs/second")) << arguments[0];
  }
}

}  // namespace
}  // namespace nanochat::testing
