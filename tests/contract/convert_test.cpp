// nanochat import and export: what comes out, what is said, and with which exit code.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "checkpoint/checkpoint.h"
#include "checkpoint/testing.h"
#include "core/atomic_file.h"
#include "program.h"
#include "tokenizer/tokenizer.h"

namespace nanochat::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;

json json_of(std::vector<std::string> arguments) {
  arguments.emplace_back("--json");
  const ProgramResult result = run_program(arguments);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  return json::parse(result.out);
}

class ConvertTest : public ::testing::Test {
 protected:
  void SetUp() override {
    GptConfig config = small_config();
    config.intermediate_size = 4 * config.n_embd;
    config.rope_table_bf16 = true;
    const Gpt model = small_model(config);
    const auto tokenizer = byte_tokenizer(folder_.path());
    CheckpointContents contents;
    contents.config = &model.config();
    contents.weights = model_weights(model);
    contents.tokenizer = tokenizer.get();
    contents.training_state = {{"step", 40}};
    save_checkpoint(checkpoint_, contents);
  }
  // The tokens and log probabilities that the program continues with.
  json continuation(const fs::path& model) {
    return json_of({"infer", model, "--prompt-ids", "1,2,3", "--temperature", "0", "--max-tokens", "12", "--ignore-eos",
                    "--dtype", "float32"});
  }
  void expect_error(const std::vector<std::string>& arguments, int exit_code, const std::string& part) {
    const ProgramResult result = run_program(arguments);
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    EXPECT_THAT(result.err, HasSubstr(part));
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
    EXPECT_EQ(result.out, "");
  }
  TemporaryDirectory folder_;
  fs::path checkpoint_ = folder_ / "checkpoint";
};

TEST_F(ConvertTest, EveryFormReturns) {
  const json expected = continuation(checkpoint_);
  const std::vector<std::vector<std::string>> forms = {
      {"--format", "huggingface"}, {"--format", "huggingface", "--max-shard-size", "20kB"}, {"--format", "reference"}};
  for (std::size_t i = 0; i < forms.size(); ++i) {
    const std::string out = folder_ / ("out" + std::to_string(i)), back = folder_ / ("back" + std::to_string(i));
    std::vector<std::string> command = {"export", checkpoint_, "--output", out};
    command.insert(command.end(), forms[i].begin(), forms[i].end());
    const json report = json_of(command);
    EXPECT_GE(report.at("files").size(), 3U);
    for (const auto& file : report.at("files")) EXPECT_TRUE(fs::exists(file.get<std::string>())) << file;
    const json imported = json_of({"import", out, "--output-dir", back});
    EXPECT_EQ(imported.at("format"), i == 2 ? "reference" : "huggingface");
    EXPECT_EQ(imported.at("tokenizer").at("vocab_size"), 265);
    const json continued = continuation(back);
    EXPECT_EQ(continued.at("ids"), expected.at("ids"));
    EXPECT_EQ(continued.at("logprobs"), expected.at("logprobs"));
    EXPECT_GT(json_of({"info", back, "--verify"}).at("verified_files"), 3);
    if (i < 2) {
      EXPECT_EQ(continuation(out).at("logprobs"), expected.at("logprobs")) << "a folder is a checkpoint as it is";
    }
  }
}

TEST_F(ConvertTest, SaysWhatItDid) {
  const std::string out = folder_ / "pt";
  const ProgramResult exported = run_program({"export", checkpoint_, "--output", out, "--format", "reference"});
  EXPECT_THAT(exported.out, HasSubstr("pt: 3 files, "));
  fs::remove(folder_ / "pt/tokenizer.pkl");
  const ProgramResult imported = run_program({"import", out, "--output-dir", folder_ / "a"});
  EXPECT_EQ(imported.exit_code, 0);
  EXPECT_THAT(imported.out, HasSubstr("parameters in 2 layers, from " + out + "/model_000040.pt (F32)"));
  EXPECT_THAT(imported.err, HasSubstr("no tokenizer was found"));
  const json with = json_of({"import", out, "--output-dir", folder_ / "b", "--tokenizer", folder_ / "bytes.tiktoken"});
  EXPECT_EQ(with.at("tokenizer").at("type"), "bpe");
  EXPECT_EQ(with.at("step"), 40);
}

TEST_F(ConvertTest, RanksAreAFile) {
  json_of({"export", checkpoint_, "--output", folder_ / "ranks.tiktoken", "--format", "tiktoken"});
  EXPECT_EQ(read_file(folder_ / "ranks.tiktoken"), read_file(folder_ / "bytes.tiktoken"));
}

TEST_F(ConvertTest, RefusesWhatDoesNotFitTheModel) {
  const std::string out = folder_ / "pt";
  json_of({"export", checkpoint_, "--output", out, "--format", "reference"});
  const std::string imported = folder_ / "imported";
  expect_error({"import", out, "--output-dir", imported, "--rope-base", "20000"}, 2, "--rope-base is 20000");
  fs::path meta = folder_ / "pt/meta_000040.json";
  json object = json::parse(read_file(meta));
  object.erase("architecture");
  object.at("model_config").erase("n_head");
  write_text(meta, object.dump());
  expect_error({"import", out, "--output-dir", imported}, 4, "give --n-head");
  expect_error({"import", out, "--output-dir", imported, "--n-head", "4", "--reference", "none"}, 4,
               "give --intermediate-size, --rope-base, --rope-table-dtype, --softcap, --rms-norm-eps");
  EXPECT_EQ(run_program({"import", out, "--output-dir", imported, "--n-head", "4"}).exit_code, 0);
  expect_error({"import", out, "--output-dir", imported, "--n-head", "4"}, 2, "imported: is there already");
  EXPECT_EQ(run_program({"import", out, "--output-dir", imported, "--n-head", "4", "--overwrite"}).exit_code, 0);

  expect_error({"import", folder_ / "absent", "--output-dir", folder_ / "x"}, 4, "absent: no such file or folder");
  expect_error({"import", out}, 2, "--output-dir");
  expect_error({"export", checkpoint_, "--output", folder_ / "x", "--format", "gguf"}, 2, "huggingface");
  expect_error({"export", checkpoint_, "--output", folder_ / "x", "--max-shard-size", "large"}, 2,
               "a size such as 500MB or 5GiB");
  expect_error({"export", folder_ / "absent", "--output", folder_ / "x"}, 4, "absent: no such checkpoint or run");
  fs::copy_file(folder_ / "pt/model_000040.pt", folder_ / "pt/model_000041.pt");
  expect_error({"import", folder_ / "pt/model_000041.pt", "--output-dir", folder_ / "x"}, 4,
               "meta_000041.json (which is absent)");
  write_text(folder_ / "pt/meta_000041.json", object.dump());
  write_text(folder_ / "pt/model_000041.pt", "PK not really");
  expect_error({"import", out, "--output-dir", folder_ / "x", "--n-head", "4"}, 4, "model_000041.pt: is no zip archive");
  write_text(folder_ / "broken.pkl", "\x80\x04N.");
  expect_error({"import", folder_ / "pt/model_000040.pt", "--n-head", "4", "--tokenizer", folder_ / "broken.pkl",
                "--output-dir", folder_ / "x"},
               3, "broken.pkl: holds None, expected a tiktoken.core.Encoding");
  EXPECT_FALSE(fs::exists(folder_ / "x"));
}

}  // namespace
}  // namespace nanochat::testing
