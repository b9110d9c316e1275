// Text to tokenizer to shards to a model that answers, through the program alone.
#include <cmath>
#include <fstream>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "small_run.h"

namespace nanochat::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

class Pipeline : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(small_run().failure, ""); }
  static nlohmann::json json_of(const ProgramResult& result) {
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return nlohmann::json::parse(result.out);
  }
};

TEST_F(Pipeline, TrainingLowersTheLossAndIsOnRecord) {
  std::ifstream file(small_run().run / "metrics.jsonl");
  std::vector<double> losses;
  for (std::string line; std::getline(file, line);) {
    const auto row = nlohmann::json::parse(line);
    if (row.contains("loss")) losses.push_back(row.at("loss"));
  }
  ASSERT_EQ(losses.size(), 12U);
  EXPECT_NEAR(losses.front(), std::log(512.0), 1e-3);
  EXPECT_LT(losses.back(), losses.front() - 0.5);
  EXPECT_EQ(fs::read_symlink(small_run().run / "checkpoints/latest"), "step-000012");
}

TEST_F(Pipeline, InfoDescribesTheCheckpoint) {
  const auto info = json_of(run_program({"info", small_run().run.string(), "--json"}));
  EXPECT_EQ(info.at("kind"), "checkpoint");
  EXPECT_EQ(info.at("config").at("vocab_size"), 512);
  EXPECT_EQ(info.at("config").at("num_hidden_layers"), 2);
  EXPECT_EQ(info.at("tokenizer").at("vocab_size"), 512);
  EXPECT_EQ(info.at("training_state").at("stage"), "pretrain");
  EXPECT_EQ(info.at("training_state").at("step"), 12);
  EXPECT_EQ(info.at("optimizer"), true);
  EXPECT_THAT(run_program({"info", small_run().run.string()}).out,
              AllOf(HasSubstr("model           2 layers, width 128"), HasSubstr("training        stage pretrain, step 12")));
}

TEST_F(Pipeline, GreedyTextIsTheSameFromPromptIdsAndFromText) {
  const std::string run = small_run().run.string();
  const auto by_text = json_of(run_program({"infer", run, "--prompt", "The capital of France is", "--temperature", "0",
                                            "--max-tokens", "8", "--json"}));
  const auto encoded = run_program({"tokenizer", "encode", "--tokenizer", run + "/checkpoints/latest", "--add-bos", "--json"},
                                   "The capital of France is");
  ASSERT_EQ(encoded.exit_code, 0) << encoded.err;
  const auto ids = nlohmann::json::parse(encoded.out).at("ids");
  std::string list;
  for (const auto& id : ids) list += (list.empty() ? "" : ",") + id.dump();
  const auto by_ids = json_of(run_program({"infer", run, "--prompt-ids", list, "--temperature", "0", "--max-tokens", "8",
                                           "--json"}));
  EXPECT_EQ(by_text.at("ids"), by_ids.at("ids"));
  EXPECT_EQ(by_text.at("ids").size(), 8U);
  EXPECT_EQ(by_text.at("logprobs").size(), 8U);
}

TEST_F(Pipeline, ASeedFixesSampling) {
  const std::vector<std::string> arguments = {"infer", small_run().run.string(), "--prompt", "The",   "--temperature",
                                              "1",     "--max-tokens",           "16",       "--seed"};
  const auto with_seed = [&](const char* seed) {
    auto all = arguments;
    all.push_back(seed);
    return run_program(all).out;
  };
  EXPECT_EQ(with_seed("5"), with_seed("5"));
  EXPECT_NE(with_seed("5"), with_seed("6"));
}

TEST_F(Pipeline, ABatchOfPromptsGivesOneObjectEach) {
  write_text(small_run().folder / "prompts.txt", "The capital of France is\nThree plus four is\n");
  const auto result = run_program({"infer", small_run().run.string(), "--prompts-file",
                                   (small_run().folder / "prompts.txt").string(), "--temperature", "0", "--max-tokens", "4",
                                   "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 2);
}

// The prompts that the program made of its --prompts-file, from its lines of JSON.
std::vector<std::string> prompts_of(const std::string& file, const std::string& input = "") {
  const auto result = run_program(
      {"infer", small_run().run.string(), "--prompts-file", file, "--temperature", "0", "--max-tokens", "2", "--json"}, input);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  std::vector<std::string> prompts;
  std::istringstream lines(result.out);
  for (std::string line; std::getline(lines, line);) prompts.push_back(nlohmann::json::parse(line).at("prompt"));
  return prompts;
}

TEST_F(Pipeline, PromptFilesMayHaveAMarkBlankLinesAndWindowsLineEnds) {
  const fs::path text = small_run().folder / "marked.txt", rows = small_run().folder / "marked.jsonl";
  write_text(text, "\xEF\xBB\xBFWhat is\r\n\r\n  \nThe\r\n\n");
  EXPECT_THAT(prompts_of(text.string()), ::testing::ElementsAre("What is", "The"));
  write_text(rows, "\xEF\xBB\xBF{\"prompt\":\"What is\"}\r\n\r\n\n{\"prompt\":\"The\"}");
  EXPECT_THAT(prompts_of(rows.string()), ::testing::ElementsAre("What is", "The"));
  write_text(small_run().folder / "UPPER.JSONL", "{\"prompt\":\"The\"}\n");
  EXPECT_THAT(prompts_of((small_run().folder / "UPPER.JSONL").string()), ::testing::ElementsAre("The"));
  write_text(small_run().folder / "list.json", "[{\"prompt\": \"The\"},\n {\"prompt\": \"A\"}]\n");
  EXPECT_THAT(prompts_of((small_run().folder / "list.json").string()), ::testing::ElementsAre("The", "A"));
  // Lines are counted with the blank ones.
  write_text(rows, "\n{\"prompt\":\"The\"}\n\n{\"prompt\":7}\n");
  const auto wrong = run_program({"infer", small_run().run.string(), "--prompts-file", rows.string()});
  EXPECT_EQ(wrong.exit_code, 3);
  EXPECT_THAT(wrong.err, HasSubstr("marked.jsonl:4: \"prompt\" is not a string"));
}

TEST_F(Pipeline, PromptsComeFromStandardInputToo) {
  EXPECT_THAT(prompts_of("-", "\xEF\xBB\xBFThe\n\nA\n"), ::testing::ElementsAre("The", "A"));
  EXPECT_THAT(prompts_of("-", "\n{\"prompt\": \"The\"}\r\n{\"prompt\": \"A\"}"), ::testing::ElementsAre("The", "A"));
  const auto empty = run_program({"infer", small_run().run.string(), "--prompts-file", "-"}, "\n\n");
  EXPECT_EQ(empty.exit_code, 3);
  EXPECT_THAT(empty.err, HasSubstr("standard input: holds no prompt"));
  const auto wrong = run_program({"infer", small_run().run.string(), "--prompts-file", "-"}, "{\"prompt\": \"The\"}\nA\n");
  EXPECT_EQ(wrong.exit_code, 3);
  EXPECT_THAT(wrong.err, HasSubstr("standard input:2: "));
}

TEST_F(Pipeline, TypedLinesMayHaveAMarkAndWindowsLineEnds) {
  const auto result = run_program({"infer", small_run().run.string(), "--interactive", "--temperature", "0", "--max-tokens",
                                   "1", "--json"},
                                  "\xEF\xBB\xBFThe\r\n\r\nThe\n");
  ASSERT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 2) << result.err;
  const std::size_t half = result.out.find('\n') + 1;
  const auto first = nlohmann::json::parse(result.out.substr(0, half)), second = nlohmann::json::parse(result.out.substr(half));
  EXPECT_EQ(first.at("prompt"), "The");
  EXPECT_EQ(first.at("prompt_ids"), second.at("prompt_ids"));
}

TEST_F(Pipeline, ACustomTaskNeedsNoDataDir) {
  const fs::path& folder = small_run().folder.path();
  write_text(
      folder / "caps.jsonl",
      "\xEF\xBB\xBF{\"country\":\"France\",\"capital\":\"Paris\"}\r\n\r\n{\"country\":\"It{aly\",\"capital\":\"Rome\"}\r\n");
  for (const std::string& begin : {std::string(), std::string("\xEF\xBB\xBF")}) {
    write_text(
        folder / "caps.json",
        begin +
            "{\"name\":\"caps\",\"form\":\"generative\",\r\n\"data\":\"caps.jsonl\",\"prompt\":\"Capital of {country}?\","
            "\"answer\":\"{capital}\",\"metric\":\"stated\"}\r\n");
    const auto evaluation = json_of(run_program({"eval", small_run().run.string(), "--custom-task",
                                                 (folder / "caps.json").string(), "--max-tokens", "2", "--json"}));
    ASSERT_EQ(evaluation.at("results").size(), 1U);
    EXPECT_EQ(evaluation.at("results").at(0).at("task"), "caps");
    EXPECT_EQ(evaluation.at("results").at(0).at("total"), 2);
  }
  // What is asked for by name is scored as well.
  const auto both = json_of(run_program({"eval", small_run().run.string(), "--custom-task", (folder / "caps.json").string(),
                                         "--data-dir", (folder / "toy/quickstart_prompts.jsonl").string(), "--max-tokens", "2",
                                         "--json"}));
  EXPECT_EQ(both.at("results").size(), 2U);
}

TEST_F(Pipeline, ConfigurationsMayHaveAMarkAndWindowsLineEnds) {
  const fs::path config = small_run().folder / "config.json";
  write_text(config, "\xEF\xBB\xBF{\r\n  \"prompt\": \"The\",\r\n  \"max_tokens\": 2\r\n}\r\n");
  const auto result = run_program({"infer", small_run().run.string(), "--config", config.string(), "--json"});
  EXPECT_EQ(json_of(result).at("ids").size(), 2U);
}

TEST_F(Pipeline, EvalScoresTheToyPrompts) {
  const auto evaluation = json_of(run_program({"eval", small_run().run.string(), "--data-dir",
                                               (small_run().folder / "toy/quickstart_prompts.jsonl").string(), "--json"}));
  ASSERT_EQ(evaluation.at("results").size(), 1u);
  const auto& score = evaluation.at("results").at(0);
  EXPECT_EQ(score.at("total"), 7);
  EXPECT_DOUBLE_EQ(score.at("value").get<double>(), score.at("correct").get<double>() / 7.0);
}

TEST_F(Pipeline, TrainingTwiceGivesTheSameWeights) {
  const fs::path again = small_run().folder / "again";
  ASSERT_EQ(run_program(small_run().pretrain_arguments(again)).exit_code, 0);
  const auto digest = [](const fs::path& run) {
    std::ifstream file(run / "checkpoints/latest/training_state.json");
    return nlohmann::json::parse(file).at("sha256").at("model.safetensors");
  };
  EXPECT_EQ(digest(small_run().run), digest(again));
}

TEST_F(Pipeline, ShardsDoNotDependOnTheNumberOfWorkers) {
  const fs::path again = small_run().folder / "shards-again";
  ASSERT_EQ(run_program({"data", "prepare", "--data-dir", small_run().corpus.string(), "--tokenizer",
                         small_run().tokenizer.string(), "--output-dir", again.string(), "--workers", "3", "--quiet"})
                .exit_code,
            0);
  const auto bytes = [](const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  EXPECT_EQ(bytes(small_run().shards / "train-00000.tok"), bytes(again / "train-00000.tok"));
  EXPECT_NE(bytes(again / "train-00000.tok"), "");
}

TEST_F(Pipeline, BenchEndsInOneLineOfJson) {
  for (const char* what : {"train", "infer"}) {
    const auto result = run_program({"bench", what, "--depth", "1", "--sequence-len", "32", "--device-batch-size", "2",
                                     "--vocab-size", "256", "--json"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const std::string last = result.out.substr(result.out.rfind('\n', result.out.size() - 2) + 1);
    const auto json = nlohmann::json::parse(last);
    for (const char* key : what == std::string("train")
                               ? std::vector<const char*>{"tokens_per_second", "step_ms", "mfu", "memory_bytes"}
                               : std::vector<const char*>{"prefill_tokens_per_second", "decode_tokens_per_second", "ttft_ms"}) {
      EXPECT_GT(json.at(key).get<double>(), 0.0) << what << key;
    }
  }
}

}  // namespace
}  // namespace nanochat::testing
