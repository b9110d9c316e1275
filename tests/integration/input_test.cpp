// What people hand to the program as data: pipes, other names of files, folders with other things in them, bad rows, columns
// of other names, tokenizers of others, files that Git LFS left out; and two processes that want one folder.
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "core/folder_lock.h"
#include "small_run.h"

namespace nanochat::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int kUsage = 2, kData = 3, kCheckpoint = 4;
constexpr const char* kPointer =
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";

class Input : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(small_run().failure, ""); }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  std::string file(const std::string& name, const std::string& text) const {
    write_text(folder_ / name, text);
    return path(name);
  }
  static std::string tokenizer() { return small_run().tokenizer.string(); }

  // A line of bash, in which nanochat is the program. Its output, and its errors behind.
  std::string bash(const std::string& line, int expected = 0) const {
    const std::string script = "nanochat() { '" + program_path() + "' \"$@\"; }\n{ " + line + "\n} 2>&1";
    FILE* pipe = ::popen(("bash -c " + quoted(script)).c_str(), "r");
    std::string out;
    char buffer[4096];
    for (std::size_t got = 0; (got = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) out.append(buffer, got);
    const int status = ::pclose(pipe);
    EXPECT_EQ(WEXITSTATUS(status), expected) << line << "\n" << out;
    return out;
  }
  static std::string quoted(const std::string& text) {
    std::string result = "'";
    for (const char c : text) result += c == '\'' ? "'\\''" : std::string(1, c);
    return result + "'";
  }

  // One line on standard error that says all of `expected`, and nothing on standard output.
  static void refused(const std::vector<std::string>& arguments, int code, const std::vector<std::string>& expected) {
    const ProgramResult result = run_program(arguments);
    EXPECT_EQ(result.exit_code, code) << result.err;
    EXPECT_EQ(result.out, "");
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
    for (const std::string& text : expected) EXPECT_THAT(result.err, HasSubstr(text));
    EXPECT_THAT(result.err, Not(HasSubstr("json.exception")));
  }

  std::vector<std::string> prepare(const std::string& data, const std::string& output,
                                   std::vector<std::string> more = {}) const {
    std::vector<std::string> arguments = {"data",      "prepare",      "--data-dir", data,     "--tokenizer",
                                          tokenizer(), "--output-dir", output,       "--quiet"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }

  static std::map<std::string, std::string> shards(const fs::path& folder) {
    std::map<std::string, std::string> files;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
      if (entry.path().extension() == ".tok") files[entry.path().filename()] = read_file(entry.path());
    }
    return files;
  }

  // Standard output on a pseudo-terminal.
  static std::string on_terminal(const std::vector<std::string>& arguments,
                                 const std::map<std::string, std::string>& environment) {
    const int controller = ::posix_openpt(O_RDWR | O_NOCTTY);
    if (controller < 0 || ::grantpt(controller) != 0 || ::unlockpt(controller) != 0) return "no terminal";
    const std::string name = ::ptsname(controller);
    const pid_t child = ::fork();
    if (child == 0) {
      const int terminal = ::open(name.c_str(), O_RDWR | O_NOCTTY);
      ::dup2(terminal, STDOUT_FILENO);
      ::dup2(terminal, STDERR_FILENO);
      ::unsetenv("NO_COLOR");
      for (const auto& [variable, value] : environment) ::setenv(variable.c_str(), value.c_str(), 1);
      std::vector<std::string> words = {program_path()};
      words.insert(words.end(), arguments.begin(), arguments.end());
      std::vector<char*> argv;
      for (std::string& word : words) argv.push_back(word.data());
      argv.push_back(nullptr);
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    const int held = ::open(name.c_str(), O_RDWR | O_NOCTTY);  // so that nothing is lost when the child ends
    std::string text;
    char buffer[4096];
    ::fcntl(controller, F_SETFL, O_NONBLOCK);
    bool ended = false;
    while (true) {
      const ssize_t got = ::read(controller, buffer, sizeof buffer);
      if (got > 0) {
        text.append(buffer, static_cast<std::size_t>(got));
      } else if (ended) {
        break;
      } else {
        ended = ::waitpid(child, nullptr, WNOHANG) == child;
        if (!ended) std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
    }
    ::close(held);
    ::close(controller);
    return text;
  }

  // Until the process has locked the folder.
  static bool wait_for_lock(Program& program, const fs::path& folder) {
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (program.running() && std::chrono::steady_clock::now() < limit) {
      std::error_code ignored;
      if (fs::file_size(folder / FolderLock::kFileName, ignored) > 0 && !ignored) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }

  TemporaryDirectory folder_;
};

TEST_F(Input, PipesAreReadWhereFilesAre) {
  const std::string corpus = small_run().corpus.string();
  const std::string prepare = "nanochat data prepare --tokenizer " + tokenizer() + " --quiet --output-dir ";
  bash(prepare + path("file") + " " + corpus);
  const auto expected = shards(folder_ / "file");
  bash(prepare + path("substituted") + " <(cat " + corpus + ")");
  bash(prepare + path("gzipped") + " <(gzip -c " + corpus + ")");
  bash("cat " + corpus + " | " + prepare + path("piped") + " /dev/stdin");
  bash("cat " + corpus + " | " + prepare + path("dash") + " -");
  bash(prepare + path("redirected") + " /dev/stdin < " + corpus);
  for (const char* name : {"substituted", "gzipped", "piped", "dash", "redirected"})
    EXPECT_EQ(shards(folder_ / name), expected) << name;

  const std::string quiet = " --quiet --vocab-size 400 --output-dir ";
  bash("nanochat tokenizer train <(cat " + corpus + ")" + quiet + path("tokenizer"));
  EXPECT_THAT(bash("nanochat tokenizer eval --tokenizer " + tokenizer() + " --repeats 1 --data-dir <(head -n 50 " + corpus +
                   ")"),
              HasSubstr("bytes per token"));
  EXPECT_THAT(bash("nanochat data inspect --tokenizer " + tokenizer() + " <(head -n 50 " + corpus + ")"),
              HasSubstr("50 documents"));
  EXPECT_THAT(bash("nanochat data validate <(head -n 50 " + corpus + ") --quiet; true"), HasSubstr("50 documents"));
  EXPECT_THAT(bash("echo '{\"text\":\"hi\"}' | nanochat tokenizer encode --tokenizer " + tokenizer() + " --jsonl /dev/stdin"),
              HasSubstr("{\"ids\":["));
  const std::string chat = R"({"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]})";
  const std::string render = "nanochat data render --tokenizer " + tokenizer() + " ";
  EXPECT_THAT(bash(render + "<(echo '" + chat + "')"), HasSubstr(":1: "));
  EXPECT_THAT(bash(render + "<(echo '[" + chat + "," + chat + "]')"), HasSubstr("<|assistant_end|>"));
}

// Training reads its text again and again.
TEST_F(Input, TrainingReadsAPipe) {
  bash("nanochat pretrain --data-dir <(cat " + small_run().corpus.string() + ") --tokenizer " + tokenizer() + " --output-dir " +
       path("run") +
       " --depth 2 --sequence-len 64 --device-batch-size 8 --total-batch-size 1024 --num-iterations 3 "
       "--eval-tokens 2048 --threads 1 --quiet");
  EXPECT_TRUE(fs::exists(folder_ / "run/checkpoints/step-000003"));
}

TEST_F(Input, OtherNamesOfJsonLinesAreRead) {
  const std::string rows = "{\"text\":\"first document\"}\n{\"text\":\"second document\"}\n";
  std::map<std::string, std::string> expected;
  for (const char* name : {"d.jsonl", "d.ndjson", "d.jsonlines", "D.JSONL", "D.NdJson"}) {
    const std::string output = path(std::string("out-") + name);
    const ProgramResult result = run_program(prepare(file(name, rows), output));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    if (expected.empty()) expected = shards(output);
    EXPECT_EQ(shards(output), expected) << name;
    EXPECT_EQ(run_program({"data", "validate", path(name), "--quiet"}).exit_code, 0) << name;
  }
}

TEST_F(Input, TheToyFolderCanBeReadAsItIs) {
  const std::string toy = small_run().corpus.parent_path().string();
  const ProgramResult trained = run_program({"tokenizer", "train", "--data-dir", toy, "--vocab-size", "400", "--output-dir",
                                             path("tokenizer")});
  EXPECT_EQ(trained.exit_code, 0) << trained.err;
  EXPECT_THAT(trained.err, AllOf(HasSubstr("passed over"), HasSubstr("test_prompts.jsonl")));
  const ProgramResult prepared = run_program(prepare(toy, path("shards")));
  EXPECT_EQ(prepared.exit_code, 0) << prepared.err;
  EXPECT_EQ(shards(folder_ / "shards"), shards(small_run().shards));
  EXPECT_THAT(run_program({"data", "validate", toy, "--quiet"}).out, Not(HasSubstr("missing-text")));
}

TEST_F(Input, BadRowsAreSkippedCountedAndListedWhenAsked) {
  std::string rows;
  for (int i = 0; i < 40; ++i)
    rows += "{\"text\":\"document number " + std::to_string(i) + "\"}\n" + (i % 10 == 3 ? "{\"text\": oops\n" : "");
  const std::string data = file("rows.jsonl", rows);
  refused(prepare(data, path("out")), kData, {"rows.jsonl:5: malformed JSON"});
  refused(prepare(data, path("out"), {"--skip-bad", "3"}), kData,
          {"rows.jsonl:38: malformed JSON", "--skip-bad allows 3 bad rows"});
  refused(prepare(data, path("out"), {"--skip-bad", "few"}), kUsage,
          {"--skip-bad: found \"few\", expected a number of rows, or all"});
  for (const char* allowed : {"4", "all"}) {
    const ProgramResult result = run_program(prepare(data, path(std::string("out-") + allowed),
                                                     {"--skip-bad", allowed, "--json"}));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.err, AllOf(HasSubstr("skipped " + data + ":5: malformed JSON"), HasSubstr("4 bad rows were skipped")));
    const json report = json::parse(result.out);
    EXPECT_EQ(report["skipped_rows"]["rows"], 4);
    EXPECT_EQ(report["train_documents"].get<int>() + report["validation_documents"].get<int>(), 40);
  }
  const std::vector<std::string> train = {"tokenizer",    "train", "--data-dir",   data,        "--type",  "bpe",
                                          "--vocab-size", "280",   "--output-dir", path("tok"), "--quiet", "--skip-bad"};
  const auto with = [&](const char* value) {
    std::vector<std::string> arguments = train;
    arguments.emplace_back(value);
    return arguments;
  };
  refused(with("0"), kData, {"rows.jsonl:5: malformed JSON"});
  const ProgramResult trained = run_program(with("all"));
  EXPECT_EQ(trained.exit_code, 0) << trained.err;
  EXPECT_THAT(trained.err, HasSubstr("4 bad rows were skipped"));
}

TEST_F(Input, RowsThatOtherProgramsReadAreRead) {
  const std::string lone = file("lone.jsonl", "{\"text\":\"\\ud83d lone\"}\n");
  const std::string overflow = file("overflow.jsonl", "{\"text\":\"a\",\"x\":1e999}\n");
  for (const std::string& data : {lone, overflow}) {
    for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
             prepare(data, data + "-out"),
             {"data", "inspect", data, "--tokenizer", tokenizer()},
             {"tokenizer", "train", data, "--type", "bpe", "--vocab-size", "265", "--output-dir", data + "-tok", "--quiet"},
             {"tokenizer", "encode", data, "--jsonl", "--tokenizer", tokenizer()}}) {
      const ProgramResult result = run_program(arguments);
      EXPECT_EQ(result.exit_code, 0) << arguments[1] << ": " << result.err;
    }
  }
  EXPECT_EQ(run_program({"data", "validate", overflow, "--quiet"}).exit_code, 0);
  EXPECT_THAT(run_program({"data", "inspect", lone, "--tokenizer", tokenizer()}).out, HasSubstr("\xEF\xBF\xBD"));
  const std::string chat = file(
      "chat.jsonl", R"({"messages":[{"role":"user","content":"\ud800"},{"role":"assistant","content":"b"}],"n":1e999})"
                    "\n");
  EXPECT_EQ(run_program({"data", "render", chat, "--tokenizer", tokenizer()}).exit_code, 0);
}

// Whatever is wrong with JSON, the message has its place and nothing of the library that parses it.
TEST_F(Input, NoExceptionOfTheJsonLibraryReachesTheUser) {
  const std::string big = file("big.json", "{\"depth\": 1e999}");
  refused({"pretrain", "--config", big}, kUsage, {"big.json"});
  for (const char* bad : {"{\"text\":", "{\"text\":\"\\ud8\"}", "[1", "\"\xff\"", "{\"a\":NaN}"}) {
    const std::string data = file("bad.jsonl", std::string(bad) + "\n");
    refused(prepare(data, path("out")), kData, {"bad.jsonl:1"});
    refused({"tokenizer", "encode", data, "--jsonl", "--tokenizer", tokenizer()}, kData, {"bad.jsonl:1"});
    refused({"data", "render", data, "--tokenizer", tokenizer()}, kData, {"bad.jsonl:1"});
  }
  refused({"run", file("chain.json", R"({"name":"x","output_dir":7,"steps":[]})")}, kUsage,
          {"\"output_dir\" is of the wrong type"});
  refused({"run", file("chain.json", R"({"name":"x","hardware":{"name":"h","gpu":"yes"},"steps":[]})")}, kUsage,
          {"\"gpu\" is of the wrong type"});
}

TEST_F(Input, AColumnIsNeverChosenAmongSeveral) {
  NANOCHAT_SHARED_OR_SKIP(parquet, "cases/id_first.parquet");
  const std::string data = parquet.string();
  const std::vector<std::vector<std::string>> commands = {
      prepare(data, path("out")),
      {"data", "inspect", data, "--tokenizer", tokenizer()},
      {"tokenizer", "train", data, "--type", "bpe", "--vocab-size", "265", "--output-dir", path("tok"), "--quiet"},
      {"tokenizer", "eval", "--tokenizer", tokenizer(), "--data-dir", data},
      {"data", "contamination", data, "--against", file("set.jsonl", "{\"q\":\"x\"}\n"), "--quiet"}};
  for (std::vector<std::string> arguments : commands) {
    refused(arguments, kData, {"no column \"text\"", "id (String)", "--text-column"});
    for (const char* flag : {"--text-column", "--text-key"}) {
      arguments.insert(arguments.end(), {flag, "article"});
      const ProgramResult result = run_program(arguments);
      EXPECT_EQ(result.exit_code, 0) << arguments[1] << ": " << result.err;
      arguments.resize(arguments.size() - 2);
      fs::remove_all(path("out"));
    }
  }
  const ProgramResult validated = run_program({"data", "validate", data, "--quiet"});
  EXPECT_EQ(validated.exit_code, kData);
  EXPECT_THAT(validated.out, HasSubstr("--text-column"));
  EXPECT_EQ(run_program({"data", "validate", data, "--text-column", "article", "--quiet"}).exit_code, 0);
}

TEST_F(Input, ATokenizerOfOthersIsRefusedOrGoesAllTheWay) {
  NANOCHAT_SHARED_OR_SKIP(llama, "cases/tok/llama3/tokenizer.json");
  fs::create_directory(folder_ / "llama3");
  fs::copy(llama, folder_ / "llama3/tokenizer.json");
  std::vector<std::string> arguments = {
      "data", "prepare", small_run().corpus.string(), "--tokenizer", path("llama3"), "--output-dir", path("shards"), "--quiet"};
  refused(arguments, kData, {"--bos-token", "<|begin_of_text|>"});
  EXPECT_FALSE(fs::exists(folder_ / "shards"));
  arguments.insert(arguments.end(), {"--bos-token", "<|begin_of_text|>"});
  const ProgramResult prepared = run_program(arguments);
  ASSERT_EQ(prepared.exit_code, 0) << prepared.err;
  std::vector<std::string> train = small_run().pretrain_arguments(folder_ / "run");
  train[2] = path("shards");
  const ProgramResult trained = run_program(train);
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  const json config = json::parse(read_file(folder_ / "run/checkpoints/latest/config.json"));
  EXPECT_EQ(config["bos_token_id"], 600);
  EXPECT_EQ(run_program({"infer", path("run"), "--prompt", "The", "--max-tokens", "2", "--quiet"}).exit_code, 0);
}

TEST_F(Input, GitLfsPointersAreNamedAsWhatTheyAre) {
  const fs::path checkpoint = folder_ / "checkpoint";
  fs::copy(small_run().run / "checkpoints/step-000012", checkpoint, fs::copy_options::recursive);
  const std::vector<std::string> infer = {"infer", checkpoint.string(), "--prompt", "The", "--max-tokens", "2"};
  const std::string said = "is a Git LFS pointer, not the file itself";
  write_text(checkpoint / "model.safetensors", kPointer);
  refused(infer, kCheckpoint, {"model.safetensors: " + said, "git lfs pull"});
  fs::remove(checkpoint / "training_state.json");
  refused(infer, kCheckpoint, {"model.safetensors: " + said});
  fs::create_directory(folder_ / "tok");
  write_text(folder_ / "tok/tokenizer.json", kPointer);
  refused({"tokenizer", "info", path("tok")}, kData, {"tokenizer.json: " + said});
  for (const char* name : {"a.jsonl", "a.txt", "a.parquet", "a.jsonl.gz"}) {
    refused(prepare(file(name, kPointer), path("out")), kData, {std::string(name) + ": " + said});
  }
  fs::copy(small_run().shards, folder_ / "shards", fs::copy_options::recursive);
  write_text(folder_ / "shards/train-00000.tok", kPointer);
  std::vector<std::string> train = small_run().pretrain_arguments(folder_ / "run");
  train[2] = path("shards");
  refused(train, kData, {"train-00000.tok: " + said});
  refused({"import", checkpoint.string(), "--output-dir", path("imported")}, kCheckpoint, {"model.safetensors: " + said});
}

TEST_F(Input, ColoursAreForTerminalsThatWantThem) {
  const std::string chat = file("chat.jsonl",
                                R"({"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]})"
                                "\n");
  const std::string text = file("text.jsonl", "{\"text\":\"some text\"}\n");
  const std::vector<std::vector<std::string>> commands = {
      {"data", "render", chat, "--tokenizer", tokenizer()},
      {"data", "inspect", text, "--tokenizer", tokenizer()},
      {"data", "prepare", text, "--tokenizer", tokenizer(), "--skip-bad", "all", "--output-dir", path("out"), "--overwrite"}};
  for (const auto& arguments : commands) {
    if (arguments[1] != "prepare") {  // its bar moves the cursor, with colours or without
      EXPECT_THAT(on_terminal(arguments, {{"TERM", "xterm-256color"}}), HasSubstr("\x1b[")) << arguments[1];
      EXPECT_THAT(on_terminal(arguments, {{"TERM", "xterm-256color"}, {"NO_COLOR", "1"}}), Not(HasSubstr("\x1b[")))
          << arguments[1];
    }
    EXPECT_THAT(on_terminal(arguments, {{"TERM", "dumb"}}), Not(HasSubstr("\x1b["))) << arguments[1];
  }
  // The log: a warning about a row that was skipped.
  const std::string bad = file("bad.jsonl", "{\"text\":\"some text\"}\nbad\n");
  const std::vector<std::string> warned = {"data",         "prepare",     bad,      "--tokenizer",
                                           tokenizer(),    "--skip-bad",  "all",    "--output-dir",
                                           path("warned"), "--overwrite", "--quiet"};
  EXPECT_THAT(on_terminal(warned, {{"TERM", "xterm-256color"}}), AllOf(HasSubstr("\x1b[33m"), HasSubstr("skipped")));
  for (const std::map<std::string, std::string>& plain :
       std::vector<std::map<std::string, std::string>>{{{"TERM", "xterm-256color"}, {"NO_COLOR", "1"}}, {{"TERM", "dumb"}}}) {
    EXPECT_THAT(on_terminal(warned, plain), AllOf(Not(HasSubstr("\x1b[")), HasSubstr("skipped")));
  }
}

TEST_F(Input, TheSecondPreparationOfAFolderIsRefusedUntilTheFirstEnds) {
  std::string rows;
  for (int i = 0; i < 400'000; ++i) rows += "{\"text\":\"document number " + std::to_string(i) + " of a longer corpus\"}\n";
  const std::string data = file("rows.jsonl", rows);
  std::vector<std::string> arguments = prepare(data, path("out"), {"--tokens-per-shard", "500000", "--workers", "1"});
  {
    Program first(arguments);
    ASSERT_TRUE(wait_for_lock(first, folder_ / "out"));
    first.send(SIGSTOP);  // so that it does not end before the others have tried
    for (const char* flag : {"--overwrite", "--resume"}) {
      std::vector<std::string> second = arguments;
      second.emplace_back(flag);
      refused(second, kUsage, {"another process is writing to this folder (nanochat data prepare, process "});
    }
    EXPECT_TRUE(first.running()) << "it ended too early for this test to show anything";
    first.send(SIGKILL);
    first.wait();
  }
  arguments.emplace_back("--resume");
  const ProgramResult resumed = run_program(arguments);
  EXPECT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_EQ(run_program(prepare(data, path("expected"), {"--tokens-per-shard", "500000"})).exit_code, 0);
  EXPECT_EQ(shards(folder_ / "out"), shards(folder_ / "expected"));
}

TEST_F(Input, TheSecondTrainingOfARunIsRefusedUntilTheFirstEnds) {
  std::vector<std::string> arguments = small_run().pretrain_arguments(folder_ / "run");
  arguments.insert(arguments.end(), {"--num-iterations", "100000", "--checkpoint-interval", "5"});
  std::vector<std::string> resume = arguments;
  resume.insert(resume.end(), {"--resume", "latest"});
  {
    Program first(arguments);
    ASSERT_TRUE(wait_for_lock(first, folder_ / "run"));
    while (first.running() && !fs::exists(folder_ / "run/checkpoints/latest"))
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    refused(resume, kUsage, {"another process is writing to this folder (nanochat pretrain, process "});
    refused(arguments, kUsage, {"another process is writing to this folder"});
    first.send(SIGKILL);
    EXPECT_EQ(first.wait().exit_code, 128 + SIGKILL);
  }
  Program again(resume);
  ASSERT_TRUE(wait_for_lock(again, folder_ / "run"));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  again.send(SIGTERM);
  const ProgramResult result = again.wait();
  EXPECT_THAT(result.err, Not(HasSubstr("another process"))) << "the lock of a killed process is free at once";
}

}  // namespace
}  // namespace nanochat::testing
