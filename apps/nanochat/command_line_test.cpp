#include "command_line.h"

#include <stdlib.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <new>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "core/log.h"
#include "core/testing.h"

namespace nanochat::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;
using ::testing::StartsWith;

struct Outcome {
  int code;
  std::string out, err;
};

// A program of three commands, and what one run of it did.
class CommandLineTest : public ::testing::Test {
 protected:
  struct Config {
    int depth = 4;
    int device_batch_size = 8;
    bool compile = true;
    double lr = 0.1;
    std::string dtype = "auto";
    std::filesystem::path model;
    std::vector<std::string> data_dir;
    std::vector<std::string> benchmarks;
  };

  void SetUp() override {
    Subcommand& train = line_.add("train", "Trains a model.", "nanochat train --depth 4 data/");
    train.option("depth", &config_.depth, "layers of the model").at_least(1);
    train.option("device_batch_size", &config_.device_batch_size, "rows a step");
    train.option("compile", &config_.compile, "whether to compile");
    train.option("lr", &config_.lr, "learning rate");
    train.option("dtype", &config_.dtype, "type of numbers").one_of({"auto", "float32"});
    train.option("data_dir", &config_.data_dir, "text to train on");
    train.option("benchmarks", &config_.benchmarks, "what to score").comma_separated();
    train.positional("data_dir");
    train.run([this](Context& context) { return body_(context); });

    line_.group("bench", "Times shapes.");
    Subcommand& infer = line_.add("bench infer", "Times generation.", "nanochat bench infer --model runs/base");
    infer.option("model", &config_.model, "what to run | which");
    infer.positional("model", true);
    infer.run([this](Context& context) { return body_(context); });
    line_.add("bench nothing", "Has no function.", "nanochat bench nothing");
  }

  void TearDown() override { configure_logging({}); }

  Outcome run(std::vector<std::string> words) {
    std::vector<const char*> argv = {"nanochat"};
    for (const std::string& word : words) argv.push_back(word.c_str());
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    const int code = line_.main(static_cast<int>(argv.size()), argv.data());
    const std::string out = ::testing::internal::GetCapturedStdout();
    return {code, out, ::testing::internal::GetCapturedStderr()};
  }
  // An error is one line on standard error and nothing on standard output.
  void expect_error(const std::vector<std::string>& words, int code, const std::string& line) {
    const Outcome outcome = run(words);
    EXPECT_EQ(outcome.code, code);
    EXPECT_EQ(outcome.out, "");
    EXPECT_EQ(outcome.err, line + "\n");
  }

  Config config_;
  std::function<ExitCode(Context&)> body_ = [](Context&) { return ExitCode::kOk; };
  CommandLine line_;
};

TEST_F(CommandLineTest, FlagsOfEveryKind) {
  const Outcome outcome = run({"train", "--depth=6", "--no-compile", "--lr", "-3", "--data-dir", "a", "b", "--dtype", "float32",
                               "--benchmarks", "core,arc", "--benchmarks", "gsm8k", "--data-dir", "c"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.err, "");
  EXPECT_EQ(config_.depth, 6);
  EXPECT_FALSE(config_.compile);
  EXPECT_EQ(config_.lr, -3);
  EXPECT_EQ(config_.dtype, "float32");
  EXPECT_THAT(config_.data_dir, ElementsAre("a", "b", "c"));
  EXPECT_THAT(config_.benchmarks, ElementsAre("core", "arc", "gsm8k"));
}

TEST_F(CommandLineTest, TheLastOfTwoFlagsCounts) {
  EXPECT_EQ(run({"train", "--depth", "6", "--compile", "--no-compile", "--depth", "7"}).code, 0);
  EXPECT_EQ(config_.depth, 7);
  EXPECT_FALSE(config_.compile);
}

TEST_F(CommandLineTest, WordsWithoutAFlagArePositionalArguments) {
  EXPECT_EQ(run({"train", "--benchmarks", "core,arc", "train", "bench", "--depth", "2"}).code, 0);
  EXPECT_THAT(config_.data_dir, ElementsAre("train", "bench"));  // names of commands are words like any other here
  EXPECT_THAT(config_.benchmarks, ElementsAre("core", "arc"));
  EXPECT_EQ(run({"bench", "infer", "runs/x"}).code, 0);
  EXPECT_EQ(config_.model, "runs/x");
}

TEST_F(CommandLineTest, WordsThatLookLikeSomethingElse) {
  EXPECT_EQ(run({"train", "--dtype=", "--depth", "2"}).code, 2);  // an empty value, not "--depth"
  EXPECT_EQ(run({"bench", "infer", "--model=", "--quiet"}).code, 0);
  EXPECT_EQ(config_.model, "");
  EXPECT_EQ(run({"train", "--data-dir", "[a,b]", "x"}).code, 0);
  EXPECT_THAT(config_.data_dir, ElementsAre("[a,b]", "x"));
  EXPECT_EQ(run({"train", "--", "-a", "--depth"}).code, 0);
  EXPECT_THAT(config_.data_dir, ElementsAre("-a", "--depth"));
  EXPECT_EQ(run({"bench", "infer", "-"}).code, 0);
  EXPECT_EQ(config_.model, "-");
}

TEST_F(CommandLineTest, PrecedenceIsFlagsEnvironmentFileDefaults) {
  const testing::TemporaryDirectory folder;
  testing::write_text(folder / "c.json", R"({"depth": 5, "device_batch_size": 5, "dtype": "float32"})");
  ::setenv("NANOCHAT_DEPTH", "6", 1);
  ::setenv("NANOCHAT_DEVICE_BATCH_SIZE", "6", 1);
  const Outcome outcome = run({"train", "--depth", "7", "--config", (folder / "c.json").string()});
  ::unsetenv("NANOCHAT_DEPTH");
  ::unsetenv("NANOCHAT_DEVICE_BATCH_SIZE");
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(config_.depth, 7);
  EXPECT_EQ(config_.device_batch_size, 6);
  EXPECT_EQ(config_.dtype, "float32");
  EXPECT_EQ(config_.lr, 0.1);
}

TEST_F(CommandLineTest, UsageErrorsNameTheNearest) {
  expect_error({"train", "--dpeth", "3"}, 2, "nanochat train: unknown option --dpeth, did you mean \"--depth\"?");
  expect_error({"train", "--batch-size=3"}, 2,
               "nanochat train: unknown option --batch-size, did you mean \"--device-batch-size\"?");
  expect_error({"train", "--no-compil"}, 2, "nanochat train: unknown option --no-compil, did you mean \"--no-compile\"?");
  expect_error({"train", "--zzzzzzzzzzzz"}, 2, "nanochat train: unknown option --zzzzzzzzzzzz; --help lists the options");
  expect_error({"trian"}, 2, "nanochat: unknown command \"trian\", did you mean \"train\"?");
  expect_error({"frobnicate"}, 2, "nanochat: unknown command \"frobnicate\"; `nanochat --help` lists the commands");
  expect_error({"--verbose"}, 2, "nanochat: unknown option --verbose; `nanochat --help` lists the commands");
  expect_error({"bench", "infre"}, 2, "nanochat: unknown command \"bench infre\", did you mean \"infer\"?");
  expect_error({"bench", "frobnicate"}, 2,
               "nanochat: unknown command \"bench frobnicate\"; `nanochat bench --help` lists them");
}

TEST_F(CommandLineTest, ValueErrorsNameTheOption) {
  expect_error({"train", "--depth", "0"}, 2, "nanochat train: --depth: found 0, expected a number of at least 1");
  expect_error({"train", "--dtype", "int4"}, 2, "nanochat train: --dtype: found \"int4\", expected one of auto, float32");
  expect_error({"bench", "infer"}, 2,
               "nanochat bench infer: --model: is required (or NANOCHAT_MODEL, or \"model\" in a --config file); "
               "usage: nanochat bench infer [options] MODEL");
  expect_error({"bench", "infer", "a", "b"}, 2,
               "nanochat bench infer: unexpected argument \"b\"; usage: nanochat bench infer [options] MODEL");
  expect_error({"bench", "infer", "a", "--model", "b"}, 2,
               "nanochat bench infer: --model: given as an option and as an argument (\"a\"), "
               "expected one of the two");
  const Outcome missing = run({"train", "--depth"});
  EXPECT_EQ(missing.code, 2);
  EXPECT_THAT(missing.err, HasSubstr("--depth"));
  const Outcome no_file = run({"train", "--config", "/absent.json"});
  EXPECT_EQ(no_file.code, 2);
  EXPECT_EQ(no_file.err, "nanochat train: /absent.json: no such file\n");
}

TEST_F(CommandLineTest, HelpShowsUsageTypesChoicesAndDefaults) {
  const Outcome help = run({"train", "--depth", "3", "--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_EQ(help.err, "");
  EXPECT_THAT(help.out, StartsWith("Trains a model.\n\nUsage: nanochat train [options] [DATA_DIR...]\n"));
  EXPECT_THAT(help.out, HasSubstr("  --depth INT                     layers of the model [default: 4]\n"));
  EXPECT_THAT(help.out, HasSubstr("  --compile, --no-compile         whether to compile [default: true]\n"));
  EXPECT_THAT(help.out, HasSubstr("type of numbers [auto|float32] [default: auto]\n"));
  EXPECT_THAT(help.out, HasSubstr("--config FILE"));
  EXPECT_THAT(help.out, HasSubstr("--log-level TEXT"));
  EXPECT_THAT(help.out, HasSubstr("\nExample:\n  nanochat train --depth 4 data/\n"));
  EXPECT_EQ(config_.depth, 4);  // help sets nothing and runs nothing
  EXPECT_EQ(run({"help", "train"}).out, help.out);
  EXPECT_THAT(run({"bench", "infer", "-h"}).out, HasSubstr("what to run | which [required]\n"));
}

TEST_F(CommandLineTest, HelpLinesFitAHundredColumns) {
  std::string text = "word";
  for (int i = 0; i < 100; ++i) text += " word";
  int field = 0;
  line_.add("wide", "Wide.", "nanochat wide").option("a_very_long_name_of_an_option", &field, text);
  const std::string help = run({"wide", "--help"}).out;
  std::istringstream lines(help);
  std::string line;
  int words = 0;
  while (std::getline(lines, line)) {
    EXPECT_LE(line.size(), 100u) << line;
    for (std::size_t at = line.find("word"); at != std::string::npos; at = line.find("word", at + 1)) ++words;
  }
  EXPECT_EQ(words, 101);
}

TEST_F(CommandLineTest, WithoutACommandTheCommandsAreListed) {
  const Outcome none = run({});
  EXPECT_EQ(none.code, 2);
  EXPECT_THAT(none.out, HasSubstr("  bench infer                     Times generation.\n"));
  EXPECT_EQ(run({"--help"}).code, 0);
  EXPECT_EQ(run({"--help"}).out, none.out);
  EXPECT_EQ(run({"-h"}).out, none.out);
  EXPECT_EQ(run({"help"}).out, none.out);
  const Outcome group = run({"bench"});
  EXPECT_EQ(group.code, 2);
  EXPECT_THAT(group.out, StartsWith("Times shapes.\n\nUsage: nanochat bench COMMAND [options]\n"));
  EXPECT_THAT(group.out, Not(HasSubstr("train ")));
  EXPECT_EQ(run({"bench", "--help"}).code, 0);
  const Outcome version = run({"--version"});
  EXPECT_EQ(version.code, 0);
  EXPECT_THAT(version.out, MatchesRegex("nanochat [0-9]+\\.[0-9]+\\.[0-9]+\n"));
}

TEST_F(CommandLineTest, MarkdownHasTheUsageAndEveryOptionOfEachCommand) {
  const std::string text = line_.markdown();
  EXPECT_EQ(run({"help", "--markdown"}).out, text);
  EXPECT_THAT(text, HasSubstr("## nanochat train\n\nTrains a model.\n\n"
                              "```\nnanochat train [options] [DATA_DIR...]\n```"));
  EXPECT_THAT(text, HasSubstr("| `--depth INT` | `4` | layers of the model |\n"));
  EXPECT_THAT(text, HasSubstr("| `--dtype TEXT` | `auto` | type of numbers (`auto\\|float32`) |\n"));
  EXPECT_THAT(text, HasSubstr("| `--model PATH` | required | what to run \\| which |\n"));
  EXPECT_THAT(text, HasSubstr("| 130 | interrupted twice"));
  EXPECT_THAT(text, Not(::testing::EndsWith("\n\n")));
}

TEST_F(CommandLineTest, ExitCodesOfErrors) {
  const auto fails = [&](auto error, int code, const std::string& line) {
    body_ = [error](Context&) -> ExitCode { throw error; };
    expect_error({"train"}, code, "nanochat train: " + line);
  };
  fails(DataError("a.txt: is empty"), 3, "a.txt: is empty");
  fails(CheckpointError("c: bad"), 4, "c: bad");
  fails(IoError("disk full"), 1, "disk full");
  fails(std::runtime_error("two\nlines"), 1, "two lines");
  fails(std::bad_alloc(), 1, "out of memory; lower --device-batch-size, --depth");
  fails(c10::Error({"f", "f.cpp", 1}, "shapes differ"), 1, "shapes differ");
  fails(std::system_error(EAGAIN, std::generic_category(), "thread"), 1,
        "out of memory: thread: Resource temporarily unavailable; lower --device-batch-size, --depth");
  fails(std::runtime_error("could not create a primitive"), 1,
        "out of memory: could not create a primitive; lower --device-batch-size, --depth");
  fails(std::system_error(ENOENT, std::generic_category(), "x"), 1, "x: No such file or directory");
  fails(c10::OutOfMemoryError({"f", "f.cpp", 1}, "tried to allocate 9 GiB"), 1,
        "out of memory: tried to allocate 9 GiB; lower --device-batch-size, --depth");
  fails(c10::Error({"f", "f.cpp", 1}, "DefaultCPUAllocator: can't allocate memory: you tried 9"), 1,
        "out of memory: DefaultCPUAllocator: can't allocate memory: you tried 9; lower --device-batch-size, --depth");
  body_ = [](Context&) { return ExitCode::kPartial; };
  EXPECT_EQ(run({"train"}).code, 5);
  expect_error({"bench", "nothing"}, 1, "nanochat bench nothing: bench nothing: has no run function");
}

TEST_F(CommandLineTest, ContextAndLogFollowTheOptionsOfEveryCommand) {
  Context seen;
  body_ = [&](Context& context) {
    seen = context;
    log_info("information");
    log_warn("warning");
    return ExitCode::kOk;
  };
  Outcome outcome = run({"train"});
  EXPECT_FALSE(seen.quiet || seen.json);
  EXPECT_THAT(outcome.err, HasSubstr("info information\n"));
  outcome = run({"train", "--quiet", "--json"});
  EXPECT_TRUE(seen.quiet && seen.json);
  EXPECT_NE(dynamic_cast<SilentProgress*>(seen.progress.get()), nullptr);
  EXPECT_THAT(outcome.err, MatchesRegex("..:..:.. warning warning\n"));
  EXPECT_EQ(outcome.out, "");
}

TEST_F(CommandLineTest, ErrorsFollowTheLog) {
  const testing::TemporaryDirectory folder;
  body_ = [](Context&) -> ExitCode { throw DataError("a.txt: is empty"); };
  const Outcome outcome = run({"train", "--log-format", "json", "--log-file", (folder / "log").string(), "--log-level",
                               "error"});
  EXPECT_EQ(outcome.code, 3);
  const auto line = nlohmann::json::parse(outcome.err);
  EXPECT_EQ(line["level"], "error");
  EXPECT_EQ(line["message"], "a.txt: is empty");
  EXPECT_EQ(read_file(folder / "log"), outcome.err);
}

TEST_F(CommandLineTest, ErrorsAreSaidEvenWhenTheLogIsOff) {
  const testing::TemporaryDirectory folder;
  body_ = [](Context&) -> ExitCode { throw DataError("a.txt: is empty"); };
  EXPECT_EQ(run({"train", "--log-level", "off", "--log-file", (folder / "log").string()}).err,
            "nanochat train: a.txt: is empty\n");
}

TEST_F(CommandLineTest, MistakesInTheProgramAreLogicErrors) {
  int field = 0;
  Subcommand& command = line_.add("other", "Other.", "nanochat other");
  EXPECT_EQ(command.path(), "other");
  EXPECT_NE(command.options().find("quiet"), nullptr);
  command.option("one", &field, "one");
  EXPECT_THROW(command.option("one", &field, "again"), std::logic_error);
  EXPECT_THROW(command.option("quiet", &field, "taken"), std::logic_error);
  EXPECT_THROW(command.option("config", &field, "taken"), std::logic_error);
  EXPECT_THROW(command.positional("two"), std::logic_error);
  EXPECT_THROW(command.required("two"), std::logic_error);
  EXPECT_THROW(line_.add("other", "Other.", "nanochat other"), std::logic_error);
  command.option("list", &config_.data_dir, "list");
  command.positional("list");
  EXPECT_THROW(command.positional("one"), std::logic_error);
}

}  // namespace
}  // namespace nanochat::cli
