// What users and files get wrong: one clear line, the right exit code, nothing half-written.
#include <sys/wait.h>

#include <algorithm>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "small_run.h"

namespace nanochat::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

using Arguments = std::vector<std::string>;

class BadInput : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(small_run().failure, ""); }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  std::string run() const { return small_run().run.string(); }
  std::string file(const std::string& name, const std::string& text) const {
    write_text(folder_ / name, text);
    return path(name);
  }
  // A copy of the checkpoint to damage.
  fs::path checkpoint_copy(const std::string& name) const {
    fs::copy(small_run().run / "checkpoints/step-000012", folder_ / name, fs::copy_options::recursive);
    return folder_ / name;
  }
  static std::string bytes_of(const fs::path& path) {
    std::ifstream stream(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(stream), {});
  }
  static void replace(const fs::path& path, const std::string& from, const std::string& to) {
    std::string text = bytes_of(path);
    const std::size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    write_text(path, text.replace(at, from.size(), to));
  }

  // One line on standard error that says `expected`, nothing on standard output, and no output folder.
  void expect(const Arguments& arguments, int exit_code, const std::string& expected, const std::string& output = "") const {
    const ProgramResult result = run_program(arguments);
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    EXPECT_EQ(result.out, "");
    const auto lines = std::count(result.err.begin(), result.err.end(), '\n');
    EXPECT_EQ(lines, 1) << result.err;
    EXPECT_THAT(result.err, HasSubstr(expected));
    if (output.empty()) return;
    if (fs::exists(output)) {
      for (const auto& entry : fs::recursive_directory_iterator(output)) {
        EXPECT_FALSE(entry.path().extension() == ".tok" || entry.path().extension() == ".safetensors") << entry.path();
      }
    }
  }

  TemporaryDirectory folder_;
};

constexpr int kUsage = 2, kData = 3, kCheckpoint = 4;

TEST_F(BadInput, TextThatIsMissingEmptyOrMalformed) {
  const std::string out = path("out"), tokenizer = small_run().tokenizer.string();
  for (const Arguments& head :
       {Arguments{"tokenizer", "train", "--vocab-size", "400"}, Arguments{"data", "prepare", "--tokenizer", tokenizer}}) {
    const auto with = [&](const std::string& data) {
      Arguments all = head;
      all.insert(all.end(), {"--data-dir", data, "--output-dir", out, "--quiet"});
      return all;
    };
    expect(with(path("nowhere.txt")), kData, "nowhere.txt", out);
    expect(with(file("empty.txt", "")), kData, "empty", out);
    expect(with(file("broken.jsonl", "{\"text\": \"fine\"}\n{\"text\": \n")), kData, "broken.jsonl:2", out);
    expect(with(file("nokey.jsonl", "{\"body\": \"x\"}\n")), kData, "text", out);
    expect(with(file("strange.doc", "x")), kData, "strange.doc", out);
    expect(with(file("broken.txt.gz", "\x1f\x8b not gzip")), kData, "broken.txt.gz", out);
  }
}

TEST_F(BadInput, UnknownOptionsAndKeysNameTheNearest) {
  expect({"pretrain", "--dept", "4"}, kUsage, "--depth");
  expect({"pretrian"}, kUsage, "pretrain");
  const std::string config = file("config.json", "{\"dept\": 4}");
  expect({"pretrain", "--config", config}, kUsage, "depth");
  expect({"pretrain", "--config", file("broken.json", "{\"depth\": ")}, kUsage, "broken.json");
  expect({"pretrain", "--depth", "many", "--data-dir", "x", "--output-dir", "y"}, kUsage, "many");
  expect({"pretrain"}, kUsage, "--data-dir");
}

TEST_F(BadInput, AVocabularyTooLargeForTheCorpus) {
  const std::string corpus = file("small.jsonl", "{\"text\": \"a tiny corpus\"}\n{\"text\": \"another one\"}\n");
  expect({"tokenizer", "train", "--data-dir", corpus, "--vocab-size", "9000", "--output-dir", path("out"), "--quiet"}, kData,
         "vocab", path("out"));
}

TEST_F(BadInput, ATokenizerThatIsDamagedOrMissing) {
  expect({"tokenizer", "info", path("nowhere")}, kData, "nowhere");
  expect({"tokenizer", "info", file("tokenizer.json", "{\"version\": \"1.0\"")}, kData, "tokenizer.json");
  expect({"tokenizer", "info", file("bad.tiktoken", "IQ== 0\nnonsense\n")}, kData, "bad.tiktoken");
  expect({"tokenizer", "info", file("tokenizer.model", "not a model")}, kData, "tokenizer.model");
}

TEST_F(BadInput, ShardsThatAreDamagedOrMadeByAnotherTokenizer) {
  const fs::path shards = folder_ / "shards";
  fs::copy(small_run().shards, shards, fs::copy_options::recursive);
  const std::string original = bytes_of(shards / "train-00000.tok");
  Arguments arguments = small_run().pretrain_arguments(folder_ / "run");
  arguments[2] = shards.string();
  write_text(shards / "train-00000.tok", original.substr(0, original.size() / 2));
  expect(arguments, kData, "train-00000.tok", path("run"));
  write_text(shards / "train-00000.tok", "garbage" + original.substr(7));
  expect(arguments, kData, "train-00000.tok", path("run"));
  write_text(shards / "train-00000.tok", original);
  ASSERT_EQ(run_program({"tokenizer", "train", "--data-dir", small_run().corpus.string(), "--vocab-size", "600", "--output-dir",
                         path("other"), "--quiet"})
                .exit_code,
            0);
  arguments.insert(arguments.end(), {"--tokenizer", path("other")});
  expect(arguments, kData, "tokenizer", path("run"));
}

TEST_F(BadInput, BatchSizesAndMemoryThatDoNotFit) {
  Arguments arguments = small_run().pretrain_arguments(folder_ / "run");
  arguments.insert(arguments.end(), {"--total-batch-size", "1000"});
  expect(arguments, kUsage, "1024", path("run"));
  arguments = small_run().pretrain_arguments(folder_ / "run");
  arguments.insert(arguments.end(), {"--depth", "200", "--sequence-len", "4096", "--total-batch-size", "32768"});
  expect(arguments, kUsage, "lower", path("run"));
  arguments = small_run().pretrain_arguments(folder_ / "run");
  arguments.insert(arguments.end(), {"--device", "cuda"});
  expect(arguments, kUsage, "CUDA", path("run"));
}

TEST_F(BadInput, CheckpointsThatAreMissingOrDamaged) {
  const auto infer = [](const fs::path& model) {
    return Arguments{"infer", model.string(), "--prompt", "The", "--max-tokens", "2"};
  };
  expect(infer(folder_ / "nowhere"), kCheckpoint, "nowhere");
  fs::create_directory(folder_ / "hollow");
  expect(infer(folder_ / "hollow"), kCheckpoint, "hollow");

  const fs::path truncated = checkpoint_copy("truncated");
  const std::string weights = bytes_of(truncated / "model.safetensors");
  write_text(truncated / "model.safetensors", weights.substr(0, weights.size() - 100));
  expect(infer(truncated), kCheckpoint, "model.safetensors");
  write_text(truncated / "model.safetensors", "");
  expect(infer(truncated), kCheckpoint, "model.safetensors");

  const fs::path reshaped = checkpoint_copy("reshaped");
  replace(reshaped / "config.json", "\"hidden_size\": 128", "\"hidden_size\": 192");
  expect(infer(reshaped), kCheckpoint, "");

  const fs::path configless = checkpoint_copy("configless");
  fs::remove(configless / "config.json");
  expect(infer(configless), kCheckpoint, "config.json");
  write_text(configless / "config.json", "{}");
  expect(infer(configless), kCheckpoint, "config.json");
}

TEST_F(BadInput, ATokenizerThatDoesNotFitTheModel) {
  ASSERT_EQ(run_program({"tokenizer", "train", "--data-dir", small_run().corpus.string(), "--vocab-size", "700", "--output-dir",
                         path("larger"), "--quiet"})
                .exit_code,
            0);
  const fs::path mixed = checkpoint_copy("mixed");
  for (const char* name : {"tokenizer.json", "tokenizer.model"}) {
    fs::copy_file(folder_ / "larger" / name, mixed / name, fs::copy_options::overwrite_existing);
  }
  const ProgramResult result = run_program({"infer", mixed.string(), "--prompt", "The", "--max-tokens", "2"});
  EXPECT_TRUE(result.exit_code == kCheckpoint || result.exit_code == kData) << result.exit_code;
  EXPECT_THAT(result.err, HasSubstr("tokenizer"));
  EXPECT_EQ(result.out, "");
}

TEST_F(BadInput, PromptsThatAreBlankTooLongOrOutOfRange) {
  expect({"infer", run(), "--prompt", "  "}, kUsage, "blank");
  std::string longer;
  for (int i = 0; i < 200; ++i) longer += "word ";
  expect({"infer", run(), "--prompt", longer}, kData, "64");
  expect({"infer", run(), "--prompt-ids", "1,99999"}, kData, "99999");
  expect({"infer", run(), "--prompt-ids", "1,x"}, kUsage, "x");
  expect({"infer", run(), "--prompts-file", file("prompts.txt", "\n \n")}, kData, "prompts.txt: holds no prompt");
  expect({"infer", run(), "--prompts-file", file("rows.jsonl", "{\"prompt\":\"a\",\"messages\":[]}\n")}, kData,
         "rows.jsonl:1: expected an object with one of");
  expect({"infer", run(), "--prompts-file",
          file("rows.jsonl",
               "\n{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"}]}\n")},
         kData, "rows.jsonl:2: the last message is the assistant's");
  expect({"infer", run(), "--prompts-file", path("nowhere.txt")}, kData, "nowhere.txt");
  expect({"infer", run(), "--prompt", "The", "--temperature", "-1"}, kUsage, "temperature");
  expect({"infer", run()}, kUsage, "--prompt");
}

TEST_F(BadInput, EvalRowsThatAreMissingOrMalformed) {
  expect({"eval", run(), "--data-dir", path("nowhere.jsonl")}, kData, "nowhere.jsonl");
  expect({"eval", run(), "--data-dir", file("rows.jsonl", "{\"prompt\": 1}\n")}, kData, "rows.jsonl:1");
  expect({"eval", run()}, kUsage, "--data-dir");
}

// What is wrong with one task costs that task: the others run, and exit code 5 says that something is missing.
TEST_F(BadInput, ABundleWithBadTasksIsScoredInPart) {
  constexpr int kPartial = 5;
  fs::create_directories(path("bundle") + "/eval_data");
  std::string yaml = "icl_tasks:\n";
  for (const char* label : {"good", "nogold", "outside", "missing"}) {
    yaml += std::string("- label: ") + label + "\n  dataset_uri: " + label +
            ".jsonl\n  num_fewshot: [0]\n  icl_task_type: multiple_choice\n";
  }
  file("bundle/core.yaml", yaml);
  file("bundle/eval_meta_data.csv", "Eval Task,Random baseline\ngood,50\nnogold,50\noutside,50\nmissing,50\n");
  file("bundle/eval_data/good.jsonl", "{\"query\":\"a\",\"choices\":[\"b\",\"c\"],\"gold\":1}\n");
  file("bundle/eval_data/nogold.jsonl", "{\"query\":\"a\",\"choices\":[\"b\",\"c\"]}\n");
  file("bundle/eval_data/outside.jsonl", "{\"query\":\"a\",\"choices\":[\"b\",\"c\"],\"gold\":2}\n");
  const Arguments arguments = {"eval",       run(),          "--benchmarks", "core",
                               "--data-dir", path("bundle"), "--output-dir", path("scores")};
  const ProgramResult result = run_program(arguments);
  EXPECT_EQ(result.exit_code, kPartial) << result.err;
  EXPECT_THAT(result.err, HasSubstr("nogold.jsonl:1: the row has no \"gold\""));
  EXPECT_THAT(result.err, HasSubstr("outside.jsonl:1: \"gold\" is 2"));
  EXPECT_THAT(result.err, HasSubstr("missing.jsonl is missing"));
  EXPECT_THAT(result.out, HasSubstr("good "));
  EXPECT_TRUE(fs::exists(path("scores") + "/eval.csv"));
  expect({"eval", run(), "--benchmarks", "core", "--data-dir", path("nowhere")}, kData, "nowhere");
  expect({"report", path("nowhere")}, kData, "metrics.jsonl");
}

TEST_F(BadInput, AnOutputThatCannotBeWritten) {
  const std::string blocked = file("blocked", "a file where a folder should be");
  expect({"data", "toy", "--output-dir", blocked + "/below", "--bytes", "1000", "--quiet"}, 1, "blocked");
  Arguments arguments = small_run().pretrain_arguments(fs::path(blocked) / "run");
  const ProgramResult result = run_program(arguments);
  EXPECT_NE(result.exit_code, 0);
  EXPECT_THAT(result.err, HasSubstr("blocked"));
}

TEST_F(BadInput, ARunIsNeitherOverwrittenNorResumedAsAnother) {
  expect(small_run().pretrain_arguments(small_run().run), kUsage, "--resume");
  Arguments arguments = small_run().pretrain_arguments(small_run().run);
  arguments.insert(arguments.end(), {"--resume", "latest", "--matrix-lr", "0.5"});
  expect(arguments, kUsage, "matrix_lr");
}

}  // namespace
}  // namespace nanochat::testing
