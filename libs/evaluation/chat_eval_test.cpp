#include "evaluation/chat_eval.h"

#include <ATen/ops/tensor.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/progress.h"
#include "core/testing.h"
#include "evaluation/sandbox.h"
#include "evaluation/testing_bytes.h"
#include "model/gpt.h"
#include "model/testing.h"
#include "tasks/answers.h"
#include "tasks/example_list.h"
#include "tasks/row_tasks.h"
#include "tasks/task_mixture.h"
#include "tokenizer/special_tokens.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

ExampleList questions(TaskKind kind, std::vector<TaskExample> examples) { return {"questions", kind, std::move(examples)}; }

testing::ByteTokenizer chat_tokenizer() {
  return testing::ByteTokenizer({kChatSpecialTokens.begin(), kChatSpecialTokens.end()});
}

Gpt make_model(const Tokenizer& tokenizer, std::int64_t context = 64) {
  return testing::random_model(GptConfig::from_depth(1, tokenizer.vocab_size(), context), at::kFloat, 5);
}

std::vector<TaskExample> letters(int count) {
  std::vector<TaskExample> examples;
  for (int i = 0; i < count; ++i) {
    const std::string right(1, static_cast<char>('A' + i % 3));
    TaskExample example;
    example.conversation.messages = {{"user", std::string(static_cast<std::size_t>(i % 7 + 1), static_cast<char>('a' + i % 5))},
                                     {"assistant", right}};
    example.letters = {"A", "B", "C"};
    example.rule = AnswerRule::kLetter;
    example.answers = {right};
    example.group = i % 2 == 0 ? "even" : "odd";
    examples.push_back(example);
  }
  return examples;
}

TEST(CategoricalTask, ChoosesTheLetterWithTheGreatestLogit) {
  const auto tokenizer = chat_tokenizer();
  Gpt model = make_model(tokenizer);
  const ExampleList task = questions(TaskKind::kCategorical, letters(30));
  ExampleStore store;
  SilentProgress progress;
  const TaskResult result = evaluate_chat_task(model, tokenizer, task, {}, store, progress);
  EXPECT_EQ(result.counts.total, 30);
  EXPECT_DOUBLE_EQ(*result.baseline, 1.0 / 3.0);
  EXPECT_EQ(result.groups.at("even").total, 15);
  std::int64_t correct = 0;
  for (std::int64_t i = 0; i < 30; ++i) {  // one at a time, the plain way
    const TaskExample example = task.example(i);
    const auto prompt = render_for_completion(tokenizer, example.conversation);
    const at::Tensor ids = at::tensor(prompt, at::kInt).unsqueeze(0);
    const at::Tensor logits = model.forward(ids)[0][static_cast<std::int64_t>(prompt.size()) - 1];
    std::size_t best = 0;
    for (std::size_t l = 1; l < 3; ++l) {
      if (logits['A' + static_cast<std::int64_t>(l)].item<float>() >
          logits['A' + static_cast<std::int64_t>(best)].item<float>())
        best = l;
    }
    EXPECT_EQ(store.of("chat/questions").at(i).at("chosen"), example.letters[best]) << i;
    correct += example.letters[best] == example.answers[0] ? 1 : 0;
  }
  EXPECT_EQ(result.counts.correct, correct);
  EXPECT_EQ(task_accuracy(model, tokenizer, task).counts, result.counts);

  ChatOptions half;
  half.world = 2;
  half.max_examples = 10;
  ExampleStore share;
  EXPECT_EQ(evaluate_chat_task(model, tokenizer, task, half, share, progress).counts.total, 5);
}

TEST(CategoricalTask, NeedsLettersOfOneToken) {
  const auto tokenizer = chat_tokenizer();
  Gpt model = make_model(tokenizer);
  std::vector<TaskExample> examples = letters(1);
  examples[0].letters[1] = "BB";
  EXPECT_THAT([&] { task_accuracy(model, tokenizer, questions(TaskKind::kCategorical, examples)); },
              ThrowsMessage<DataError>(HasSubstr("\"BB\" is 2 tokens")));
  EXPECT_THAT([&] { task_accuracy(model, tokenizer, questions(TaskKind::kConversation, examples)); },
              ThrowsMessage<DataError>(HasSubstr("to train on")));
}

TEST(GenerativeTask, ComparesWhatIsWrittenAndCountsSamples) {
  const auto tokenizer = chat_tokenizer();
  // An untrained model has zero logits everywhere: greedy decoding writes NUL bytes.
  Gpt model(GptConfig::from_depth(1, tokenizer.vocab_size(), 32), at::kFloat);
  model.init_weights(1);
  std::vector<TaskExample> examples;
  for (const auto& [question, answer] :
       {std::pair<std::string, std::string>{"q", std::string(3, '\0')}, {"r", "no"}, {std::string(40, 'x'), "long"}}) {
    TaskExample example;
    example.conversation.messages = {{"user", question}, {"assistant", answer}};
    example.rule = AnswerRule::kExact;
    example.answers = {answer};
    examples.push_back(example);
  }
  const ExampleList task = questions(TaskKind::kGenerative, examples);
  ChatOptions options;
  options.max_tokens = 3;
  options.num_samples = 2;
  options.save_samples = true;
  const TaskResult result = task_accuracy(model, tokenizer, task, options);
  EXPECT_EQ(result.counts, (TaskCounts{1, 3}));
  EXPECT_EQ(result.metric, "pass@2");
  EXPECT_THAT(result.notes, ::testing::ElementsAre("1 prompts fill the context and count as wrong"));
}

TEST(GenerativeTask, NeedsASandboxForPrograms) {
  const auto tokenizer = chat_tokenizer();
  Gpt model = make_model(tokenizer);
  TaskExample example;
  example.conversation.messages = {{"user", "def f():"}, {"assistant", "x"}};
  example.rule = AnswerRule::kProgram;
  ChatOptions options;
  options.max_tokens = 2;
  EXPECT_THAT([&] { task_accuracy(model, tokenizer, questions(TaskKind::kGenerative, {example}), options); },
              ThrowsMessage<ConfigError>(HasSubstr("no sandbox")));
}

std::string program(const std::string& prompt, const std::string& answer) {
  TaskExample example;
  example.conversation.messages = {{"user", prompt}, {"assistant", ""}};
  example.test = "TEST";
  example.entry_point = "f";
  return program_of(example, answer);
}

TEST(ProgramOf, IsPutTogetherAsTheReferenceDoes) {
  const std::string end = "\n\nTEST\ncheck(f)";
  EXPECT_EQ(program("\n# c\nimport a\n\nfrom b import c\n\ndef f():\nimport d", "  x\n"),
            "import a\nfrom b import c\n\nx" + end);
  EXPECT_EQ(program("def f():", "Sure:\n```python\nx\ny\n```\nand\n```\nz\n```"), "\n\nx\ny" + end);
  EXPECT_EQ(program("", "```\n\n  x\n```"), "\n\nx" + end);
  EXPECT_EQ(program("", "```py\nx\n```"), "\n\n```py\nx\n```" + end) << "another word is no fence of the reference's";
  EXPECT_EQ(program("", "```python\nx"), "\n\n```python\nx" + end) << "a block that does not end is none";
  EXPECT_EQ(program("", "```py\n```\nx\n```"), "\n\nx" + end);
}

// The truth answers itself, and another number does not.
TEST(Gsm8k, RewardsTheTruthAndNothingElse) {
  NANOCHAT_SHARED_OR_SKIP(file, "data/gsm8k/test.jsonl");
  const auto task = load_row_task(RowTask::kGsm8k, "gsm8k", {file});
  ASSERT_EQ(task->size(), 1319);
  for (std::int64_t i = 0; i < task->size(); ++i) {
    const TaskExample example = task->example(i);
    const std::string truth = example.conversation.messages.back().parts.back().text;
    EXPECT_TRUE(is_right_answer(example, truth)) << i;
    std::string changed = truth;
    const std::size_t digit = changed.find_last_of("0123456789");
    changed[digit] = changed[digit] == '9' ? '8' : static_cast<char>(changed[digit] + 1);
    EXPECT_FALSE(is_right_answer(example, changed)) << i;
    EXPECT_FALSE(is_right_answer(example, "")) << i;
  }
}

// Programs that a model writes token by token, taken out of its answer and run.
class WrittenPrograms : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!find_python()) GTEST_SKIP() << "no python3 here";
    sandbox_ = std::make_unique<Sandbox>(/*allow_unsandboxed=*/true);
    if (!sandbox_->protections().isolated()) GTEST_SKIP() << sandbox_->protections().describe();
  }

  // A model that answers everything by `text`, in tokens of a few characters which its tokenizer has for it.
  TaskResult score(const Task& task, const std::string& text, ChatOptions options = {}) const {
    constexpr std::size_t kTokens = 60;
    const std::size_t bytes = (text.size() + kTokens - 1) / kTokens;
    std::vector<std::string> vocabulary(kChatSpecialTokens.begin(), kChatSpecialTokens.end());
    const std::size_t first = 256 + vocabulary.size();
    for (std::size_t begin = 0; begin < text.size(); begin += bytes) vocabulary.push_back(text.substr(begin, bytes));
    const testing::ByteTokenizer tokenizer(vocabulary);
    std::vector<TokenId> script = {tokenizer.require_special(kAssistantStart)};
    for (std::size_t id = first; id < 256 + vocabulary.size(); ++id) script.push_back(static_cast<TokenId>(id));
    script.push_back(tokenizer.require_special(kAssistantEnd));
    Gpt model = testing::scripted_model(GptConfig::from_depth(1, tokenizer.vocab_size(), 2048), script);
    options.sandbox = sandbox_.get();
    return task_accuracy(model, tokenizer, task, options);
  }
  std::unique_ptr<Sandbox> sandbox_;
};

TEST_F(WrittenPrograms, AreRightWhenTheyPassTheTestOfTheTask) {
  std::vector<TaskExample> examples;
  for (const std::string name : {"twice", "thrice"}) {
    TaskExample example;
    example.conversation.messages = {{"user", "import math\n\ndef " + name + "(x):\n"}, {"assistant", ""}};
    example.rule = AnswerRule::kProgram;
    example.test = "def check(f):\n    assert f(3) == " + std::string(name == "twice" ? "6" : "9");
    example.entry_point = name;
    examples.push_back(example);
  }
  const ExampleList task = questions(TaskKind::kGenerative, examples);
  const std::string answer = "Of course:\n```python\ndef twice(x):\n    return math.floor(x) * 2\n```\nThat doubles it.";
  ChatOptions options;
  EXPECT_EQ(score(task, answer, options).counts, (TaskCounts{1, 2})) << "it defines no thrice";
  options.num_samples = 3;
  const TaskResult samples = score(task, answer, options);
  EXPECT_EQ(samples.counts, (TaskCounts{1, 2}));
  EXPECT_EQ(samples.metric, "pass@3");
  options.max_tokens = 10;
  EXPECT_EQ(score(task, answer, options).counts, (TaskCounts{0, 2})) << "cut short";
  EXPECT_EQ(score(task, "import os\nos._exit(0)").counts, (TaskCounts{0, 2})) << "an end is no success";
}

TEST_F(WrittenPrograms, PassHumanEvalWithItsOwnSolutions) {
  NANOCHAT_SHARED_OR_SKIP(file, "data/humaneval/HumanEval.jsonl.gz");
  const std::shared_ptr<const Task> task = load_row_task(RowTask::kHumanEval, "humaneval", {file});
  ASSERT_EQ(task->size(), 164);
  std::int64_t own = 0, others = 0;
  constexpr std::int64_t kAsked = 8;
  for (std::int64_t i = 0; i < kAsked; ++i) {
    const std::string solution = task->example(i).conversation.messages.back().joined_text();
    own += score(*slice(task, i, i + 1), "```python\n" + solution + "\n```").counts.correct;
    others += score(*slice(task, i + 1, i + 2), solution).counts.correct;
  }
  EXPECT_EQ(own, kAsked);
  EXPECT_EQ(others, 0) << "the solution of another problem";
}

}  // namespace
}  // namespace nanochat
