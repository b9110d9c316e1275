// nanochat info: of the program, of a checkpoint and a run, of a token shard.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "checkpoint/checkpoint.h"
#include "checkpoint/run_folder.h"
#include "checkpoint/testing.h"
#include "core/atomic_file.h"
#include "data/shards/shard.h"
#include "program.h"
#include "tokenizer/tokenizer.h"

namespace nanochat::testing {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;

json json_of(const std::vector<std::string>& arguments) {
  const ProgramResult result = run_program(arguments);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  return json::parse(result.out);
}

class InfoTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const Gpt model = small_model();
    const auto tokenizer = byte_tokenizer(folder_.path());
    RunFolder run(folder_ / "run", false);
    CheckpointContents contents;
    contents.config = &model.config();
    contents.weights = model_weights(model);
    contents.tokenizer = tokenizer.get();
    contents.training_state = {{"stage", "pretrain"}, {"step", 40}};
    save_checkpoint(run.checkpoint_path(40), contents);
    fingerprint_ = tokenizer->fingerprint();
  }
  TemporaryDirectory folder_;
  std::string fingerprint_;
};

// libgomp prints what it has read when it was loaded.
TEST(Info, ThreadsSleepSoonWhenTheyWaitUnlessTheUserSaysOtherwise) {
  const auto spins = [](std::map<std::string, std::string> environment,
                        const std::vector<std::string>& command = {"--version"}) {
    environment["OMP_DISPLAY_ENV"] = "VERBOSE";
    return run_program(command, "", environment).err;
  };
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_THAT(spins({}), HasSubstr("GOMP_SPINCOUNT = '1000'"));
  for (const auto& decoding :
       std::vector<std::vector<std::string>>{{"serve", "--help"}, {"infer", "--help"}, {"bench", "serve", "--help"}}) {
    EXPECT_THAT(spins({}, decoding), HasSubstr("GOMP_SPINCOUNT = '10000'"));
  }
  EXPECT_THAT(spins({}, {"bench", "train", "--help"}), HasSubstr("GOMP_SPINCOUNT = '1000'"));
#endif
  EXPECT_THAT(spins({{"GOMP_SPINCOUNT", "7"}}), HasSubstr("GOMP_SPINCOUNT = '7'"));
  EXPECT_THAT(spins({{"OMP_WAIT_POLICY", "ACTIVE"}}), HasSubstr("OMP_WAIT_POLICY = 'ACTIVE'"));
}

TEST(Info, DescribesTheProgram) {
  const json report = json_of({"info", "--json"});
  EXPECT_EQ("nanochat " + report.at("version").get<std::string>() + "\n", run_program({"--version"}).out);
  EXPECT_THAT((std::vector<std::string>{"baseline", "avx2", "avx512"}),
              ::testing::Contains(report.at("cpu_kernels").get<std::string>()));
  EXPECT_TRUE(report.at("cpu_fast_bf16").is_boolean());
  EXPECT_TRUE(report.at("cuda").is_boolean());
  EXPECT_GE(report.at("threads").get<int>(), 1);
  const std::string libtorch = "LibTorch        " + report.at("libtorch").get<std::string>();
  EXPECT_THAT(run_program({"info"}).out, AllOf(HasSubstr(libtorch), HasSubstr("CPU kernels"), HasSubstr("CUDA")));
  EXPECT_EQ(json::parse(run_program({"info", "--json"}, "", {{"NANOCHAT_CPU", "baseline"}}).out).at("cpu_kernels"), "baseline");
}

TEST_F(InfoTest, DescribesACheckpoint) {
  const json report = json_of({"info", folder_ / "run", "--json"});
  const GptConfig config = small_config();
  EXPECT_EQ(report.at("kind"), "checkpoint");
  EXPECT_EQ(report.at("parameters"), config.parameter_count());
  EXPECT_EQ(report.at("flops_per_token"), config.flops_per_token());
  EXPECT_EQ(report.at("config").at("unpadded_vocab_size"), 265);
  EXPECT_EQ(report.at("weights_dtype"), "F32");
  EXPECT_EQ(report.at("optimizer"), false);
  EXPECT_EQ(report.at("training_state").at("step"), 40);
  EXPECT_EQ(report.at("tokenizer").at("fingerprint"), fingerprint_);
  EXPECT_FALSE(report.contains("verified_files"));

  const std::string text = run_program({"info", folder_ / "run", "--verify"}).out;
  EXPECT_THAT(text, HasSubstr("2 layers, width 32, 4 heads of 8 (2 for keys and values), MLP 96"));
  EXPECT_THAT(text, HasSubstr("265 tokens, tables of 320"));
  EXPECT_THAT(text, HasSubstr("stage pretrain, step 40, written by nanochat "));
  EXPECT_THAT(text, HasSubstr("bpe, 265 tokens, " + fingerprint_));
  EXPECT_THAT(text, ContainsRegex("verified +[0-9]+ files have the SHA-256"));
}

TEST_F(InfoTest, DescribesWeightsAlone) {
  const std::filesystem::path checkpoint = folder_ / "run/checkpoints/step-000040";
  for (const char* name : {"training_state.json", "tokenizer.json"}) std::filesystem::remove(checkpoint / name);
  const std::string text = run_program({"info", checkpoint, "--verify"}).out;
  EXPECT_THAT(text, HasSubstr("no training state"));
  EXPECT_THAT(text, HasSubstr("none in this folder"));
  EXPECT_THAT(text, HasSubstr("no SHA-256 is stored to compare with"));
  EXPECT_EQ(json_of({"info", checkpoint, "--json"}).at("tokenizer"), nullptr);
}

TEST_F(InfoTest, VerifyFindsDamage) {
  const std::filesystem::path weights = folder_ / "run/checkpoints/step-000040/model.safetensors";
  std::string bytes = read_file(weights);
  bytes.back() ^= 1;
  write_text(weights, bytes);
  EXPECT_EQ(run_program({"info", folder_ / "run"}).exit_code, 0) << "the header is whole";
  const ProgramResult result = run_program({"info", folder_ / "run", "--verify"});
  EXPECT_EQ(result.exit_code, 4);
  EXPECT_THAT(result.err, HasSubstr("model.safetensors: its SHA-256 differs"));
}

TEST_F(InfoTest, DescribesAShard) {
  const std::filesystem::path path = folder_ / "a.tok";
  ShardWriter writer(path, 265, fingerprint_);
  writer.add(std::vector<std::int32_t>{1, 2, 3}, 5);
  writer.finish();
  const json report = json_of({"info", path, "--json", "--verify"});
  EXPECT_EQ(report.at("kind"), "shard");
  EXPECT_EQ(report.at("documents"), 1);
  EXPECT_EQ(report.at("tokens"), 3);
  EXPECT_EQ(report.at("tokenizer_fingerprint"), fingerprint_);
  EXPECT_EQ(report.at("verified"), true);
  EXPECT_THAT(run_program({"info", path, "--verify"}).out, HasSubstr("the checksum is right"));
  write_text(path, "not a shard");
  EXPECT_EQ(run_program({"info", path}).exit_code, 3);
}

TEST_F(InfoTest, NamesWhatIsNotACheckpoint) {
  const ProgramResult result = run_program({"info", folder_ / "absent"});
  EXPECT_EQ(result.exit_code, 4);
  EXPECT_THAT(result.err, HasSubstr("absent: no such checkpoint or run"));
  EXPECT_EQ(result.out, "");
}

}  // namespace
}  // namespace nanochat::testing
