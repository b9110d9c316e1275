// nanochat infer --chat, piped, with a model whose answers are known: it says "Hi <<6*7=42>>" and, after a result, the
// same again until the answer is as long as it may be, or stops.
#include <chrono>
#include <csignal>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "checkpoint/checkpoint.h"
#include "checkpoint/testing.h"
#include "core/atomic_file.h"
#include "model/testing.h"
#include "program.h"
#include "tokenizer/special_tokens.h"

namespace nanochat::testing {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::StartsWith;
namespace fs = std::filesystem;

class ChatProgram : public ::testing::Test {
 protected:
  // A checkpoint of a model that answers with `words`, ids and names of special tokens, in a context of so many tokens.
  fs::path model_that_says(const std::vector<std::string>& words, std::int64_t sequence_len = 256) {
    const auto tokenizer = byte_tokenizer(folder_.path());
    GptConfig config = small_config();
    config.sequence_len = sequence_len;
    config.n_embd = 64;
    std::vector<TokenId> script = {tokenizer->require_special(kAssistantStart)};
    for (const std::string& word : words) {
      script.push_back(word.size() == 1 ? static_cast<TokenId>(static_cast<unsigned char>(word[0]))
                                        : tokenizer->require_special(word));
    }
    const Gpt model = scripted_model(config, script);
    const fs::path folder = folder_ / "model";
    save_checkpoint(folder, {&config, model_weights(model), {}, tokenizer.get(), json::object()});
    return folder;
  }
  fs::path model_that_calls() { return model_that_says({"H", "i", " ", "<|python_start|>", "6", "*", "7", "<|python_end|>"}); }
  fs::path model_that_greets(std::int64_t sequence_len = 256) {
    return model_that_says({"H", "e", "y", "!", "<|assistant_end|>"}, sequence_len);
  }
  static ProgramResult chat(const fs::path& model, const std::string& input, std::vector<std::string> more = {}) {
    std::vector<std::string> arguments = {"infer", model.string(), "--chat", "--temperature", "0", "--threads", "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_program(arguments, input);
  }
  TemporaryDirectory folder_;
};

// Rows with messages in a file of prompts are rendered as in a chat, and the calculator answers.
TEST_F(ChatProgram, AnswersConversationsOfAFile) {
  write_text(folder_ / "rows.jsonl",
             "{\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"},{\"role\":\"user\",\"content\":\"Hello\"}]}\n\n"
             "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"},{\"role\":\"user\",\"content\":"
             "\"c\"}]\n");
  const auto infer = [&](const fs::path& model, std::vector<std::string> more) {
    std::vector<std::string> arguments = {
        "infer", model.string(), "--prompts-file", (folder_ / "rows.jsonl").string(), "--temperature", "0", "--threads", "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_program(arguments);
  };
  const auto result = infer(model_that_greets(), {});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, "Hey!\nHey!\n");
  const auto rows = infer(model_that_greets(), {"--json"});
  const json first = json::parse(rows.out.substr(0, rows.out.find('\n')));
  EXPECT_EQ(first.at("text"), "Hey!");
  EXPECT_EQ(first.at("messages").at(1).at("content"), "Hello");
  EXPECT_EQ(first.at("finish_reason"), "stop");
  EXPECT_EQ(infer(model_that_calls(), {"--max-tokens", "12"}).out, "Hi <<6*7=42>>\nHi <<6*7=42>>\n");
}

TEST_F(ChatProgram, AnswersEachLineAndNothingElseGoesToStandardOutput) {
  const auto result = chat(model_that_greets(), "Hello\n\nAnd you?\r\n/help\n");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, "Hey!\nHey!\n");
  EXPECT_THAT(result.err, HasSubstr("/system TEXT"));
  EXPECT_EQ(chat(model_that_greets(), "Hello\n/exit\nnever\n").out, "Hey!\n");
  EXPECT_EQ(chat(model_that_greets(), "").out, "");
}

TEST_F(ChatProgram, RunsTheCalculator) {
  const auto result = chat(model_that_calls(), "What is it?\n", {"--max-tokens", "12"});
  EXPECT_THAT(result.out, StartsWith("Hi <<6*7=42>>")) << result.err;
  const auto row = json::parse(chat(model_that_calls(), "What is it?\n", {"--max-tokens", "12", "--json"}).out);
  EXPECT_EQ(row["role"], "assistant");
  EXPECT_EQ(row["content"][1], json({{"type", "python"}, {"text", "6*7"}}));
  EXPECT_EQ(row["content"][2], json({{"type", "python_output"}, {"text", "42"}}));
  EXPECT_EQ(row["finish_reason"], "length");
  EXPECT_EQ(row["forced"], json({0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1}));
}

TEST_F(ChatProgram, SavesAndLoadsTheConversation) {
  const std::string file = (folder_ / "saved.json").string();
  const auto result = chat(model_that_greets(), "/system Be brief.\nOne\n/save " + file + "\n/reset\nTwo\n/save " + file +
                                                    "2\n/load " + file + "\nThree\n/save " + file + "3\n");
  EXPECT_EQ(result.exit_code, 0);
  const auto messages = [](const std::string& name) { return json::parse(read_file(name)).at("messages"); };
  EXPECT_EQ(
      messages(file),
      json::parse(
          R"([{"role":"system","content":"Be brief."},{"role":"user","content":"One"},{"role":"assistant","content":"Hey!"}])"));
  EXPECT_EQ(messages(file + "2")[1]["content"], "Two");
  EXPECT_EQ(messages(file + "2").size(), 3U);
  EXPECT_EQ(messages(file + "3").size(), 5U);
  EXPECT_EQ(messages(file + "3")[3]["content"], "Three");
  write_text(folder_ / "asked.jsonl", R"([{"role":"user","content":"?"}])");
  EXPECT_EQ(chat(model_that_greets(), "/load " + (folder_ / "asked.jsonl").string() + "\n").out, "Hey!\n")
      << "answers what waits for an answer";
}

TEST_F(ChatProgram, SaysWhatIsWrongAndGoesOn) {
  const auto result = chat(model_that_greets(), "/nonsense\n/load\n/load /nowhere.json\n/save\n/save x.json\nHello\n");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.out, "Hey!\n");
  for (const char* what :
       {"unknown command /nonsense", "/load needs", "/nowhere.json", "/save needs", "no conversation to save"}) {
    EXPECT_THAT(result.err, HasSubstr(what));
  }
}

TEST_F(ChatProgram, DropsTheOldestTurnsWhenTheContextIsFull) {
  std::string input;
  for (int i = 0; i < 12; ++i) input += "question number " + std::to_string(i) + "\n";
  const auto result = chat(model_that_greets(96), input + "/save " + (folder_ / "all.json").string() + "\n");
  std::string expected;
  for (int i = 0; i < 12; ++i) expected += "Hey!\n";
  EXPECT_EQ(result.out, expected);
  EXPECT_THAT(result.err, HasSubstr("the context of 96 tokens is full: the oldest 2 messages are left out"));
  EXPECT_EQ(json::parse(read_file(folder_ / "all.json"))["messages"].size(), 24U) << "what is saved is whole";
  const auto too_long = chat(model_that_greets(96), std::string(200, 'x') + "\nHello\n");
  EXPECT_THAT(too_long.err, HasSubstr("have room"));
  EXPECT_EQ(too_long.out, "Hey!\n");
}

TEST_F(ChatProgram, AnInterruptStopsTheAnswerAndNotTheProgram) {
  const fs::path model = model_that_says({"a", "b", "a"}, 1 << 16);  // "abababab..." for far longer than this test
  const fs::path log = folder_ / "log.txt", saved = folder_ / "saved.json";
  ProgramSetting setting;
  setting.input = "One\n/save " + saved.string() + "\n";
  Program program({"infer", model.string(), "--chat", "--threads", "1", "--temperature", "0", "--max-tokens", "60000",
                   "--log-level", "debug", "--log-file", log.string()},
                  setting);
  while (program.running() && (!fs::exists(log) || read_file(log).find("chat with") == std::string::npos)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  std::this_thread::sleep_for(std::chrono::seconds(1));
  program.send(SIGINT);
  const auto result = program.wait();
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, StartsWith("abab"));
  EXPECT_LT(result.out.size(), 60'000U);
  const json messages = json::parse(read_file(saved)).at("messages");
  EXPECT_EQ(messages[1]["content"].get<std::string>() + "\n", result.out) << "what there was of the answer stays";
}

TEST_F(ChatProgram, ABosEndsAnAnswer) { EXPECT_EQ(chat(model_that_says({"a", "b", "<|bos|>"}), "One\nTwo\n").out, "ab\nab\n"); }

TEST_F(ChatProgram, RendersConversationsAsTokens) {
  const std::string model = model_that_greets().string();
  write_text(folder_ / "chat.json", R"([{"instruction": "Hi", "output": "a\nb"}, {"instruction": "?"}])");
  const std::vector<std::string> arguments = {"data", "render", (folder_ / "chat.json").string(), "--tokenizer", model};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), arguments.begin(), arguments.end());
    return run_program(more);
  };
  const auto strict = with({});
  EXPECT_EQ(strict.exit_code, 3);
  EXPECT_THAT(strict.err, HasSubstr("chat.json:1: "));
  const auto lenient = with({"--skip-bad"});
  EXPECT_EQ(lenient.exit_code, 5);
  EXPECT_THAT(lenient.out,
              HasSubstr("chat.json:1: 10 tokens, 4 supervised\n"
                        "<|bos|>|<|user_start|>|H|i|<|user_end|>|<|assistant_start|>|{a|\\n|b|<|assistant_end|>}|\n"));
  EXPECT_THAT(lenient.err, HasSubstr("1 of 2 rows skipped"));
  EXPECT_THAT(with({"--limit", "1", "--color", "always", "--ids"}).out, HasSubstr("\033[32ma\033[0m\033[2m(97)|\033[0m"));
  const auto row = json::parse(with({"--limit", "1", "--json", "--max-tokens", "8"}).out);
  EXPECT_EQ(row["mask"], json({0, 0, 0, 0, 0, 0, 1, 1}));
  EXPECT_EQ(row["ids"][6], 'a');
}

// `data validate` and `data render` read the forms that training reads.
TEST_F(ChatProgram, ReadsCallsWeightsAndSystemKeysOfConversations) {
  const std::string model = model_that_greets().string();
  write_text(
      folder_ / "chat.jsonl",
      R"({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "B", "weight": 0}, {"from": "human", "value": "c"}, )"
      R"({"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {}}"}, {"from": "observation", "value": "1"}, )"
      R"({"from": "gpt", "value": "d"}], "system": "s", "id": 7})"
      "\n");
  const std::string path = (folder_ / "chat.jsonl").string();
  const auto rendered = run_program({"data", "render", path, "--tokenizer", model});
  EXPECT_EQ(rendered.exit_code, 0) << rendered.err;
  std::string plain;  // without the bars between tokens
  for (const char c : rendered.out) plain += c == '|' ? "" : std::string(1, c);
  EXPECT_THAT(
      plain,
      HasSubstr(
          R"(<bos><user_start>s\n\na<user_end><assistant_start>B<assistant_end><user_start>c<user_end><assistant_start>)"
          R"({{"name":"f","arguments":{}}<assistant_end>}<user_start>Result of f:\n1<user_end><assistant_start>{d<assistant_end>})"));
  EXPECT_THAT(rendered.err, HasSubstr("keys that are not read: id (1 times)"));
  const auto validated = run_program({"data", "validate", path, "--json"});
  EXPECT_EQ(validated.exit_code, 0) << validated.out;
  EXPECT_EQ(json::parse(validated.out)["unread_keys"], json({{"id", 1}}));
  EXPECT_EQ(json::parse(validated.out)["conversations"], 1);

  const auto cut = run_program({"data", "render", path, "--tokenizer", model, "--max-tokens", "6"});
  EXPECT_THAT(cut.out, HasSubstr(": 6 of "));
  EXPECT_THAT(cut.err, HasSubstr("1 of 1 conversations have more than 6 tokens; the rest of each is cut off"));
  EXPECT_THAT(cut.err, HasSubstr("1 of 1 conversations have no supervised token"));
  write_text(folder_ / "half.jsonl",
             R"([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0.5}])");
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"data", "validate"}, {"data", "render", "--tokenizer", model}}) {
    std::vector<std::string> arguments = command;
    arguments.push_back((folder_ / "half.jsonl").string());
    const auto refused = run_program(arguments);
    EXPECT_EQ(refused.exit_code, 3);
    EXPECT_THAT(refused.out + refused.err,
                HasSubstr("half.jsonl:1: \"weight\" of message 2 is 0.5, expected 0, 1, false or true"));
  }
}

TEST_F(ChatProgram, NeedsAChatTokenizerAndOneWayToPrompt) {
  const auto tokenizer = byte_tokenizer(folder_.path(), "none");
  GptConfig config = small_config();
  const Gpt model = small_model(config);
  save_checkpoint(folder_ / "bare", {&config, model_weights(model), {}, nullptr, json::object()});
  const auto bare = chat(folder_ / "bare", "Hello\n");
  EXPECT_EQ(bare.exit_code, 4);
  EXPECT_THAT(bare.err, HasSubstr("no tokenizer beside the model, so it cannot chat"));
  EXPECT_EQ(chat(folder_ / "bare", "", {"--prompt", "x"}).exit_code, 2);
}

}  // namespace
}  // namespace nanochat::testing
