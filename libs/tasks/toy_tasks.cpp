#include "tasks/toy_tasks.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <set>
#include <utility>

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include "core/errors.h"
#include "core/random.h"
#include "data/toy/toy_facts.h"
#include "tasks/example_list.h"

namespace nanochat {
namespace {

// One question with its answer.
struct Turn {
  std::string question, answer, topic;
  std::vector<std::string> stated;  // what a right answer states
};

constexpr std::size_t kSpelling = 14;  // its place among toy_relations()

Turn turn_of(std::size_t relation_index, const ToyFact& fact, const std::string& question) {
  const ToyRelation& relation = toy_relations()[relation_index];
  Turn turn{fill_phrasing(question, fact), fill_phrasing(relation.told[0], fact), relation.topic, {fact.b}};
  if (fact.a.empty()) turn.stated = {"Mercury, Venus, Earth, Mars"};  // the list of the planets; its end may vary
  return turn;
}

// Every fact in every phrasing of the split, spelling left out.
std::vector<Turn> fact_turns(TaskSplit split) {
  std::vector<Turn> turns;
  for (std::size_t i = 0; i < toy_relations().size(); ++i) {
    if (i == kSpelling) continue;
    const ToyQuestions& questions = toy_questions()[i];
    for (const std::string& question : split == TaskSplit::kTrain ? questions.train : questions.test) {
      for (const ToyFact& fact : toy_relations()[i].facts) turns.push_back(turn_of(i, fact, question));
    }
  }
  return turns;
}

constexpr std::array<std::pair<const char*, const char*>, 6> kGreetings = {{
    {"Hello!", "Hello! What would you like to know?"},
    {"Hi!", "Hello! What would you like to know?"},
    {"Good morning.", "Good morning! What would you like to know?"},
    {"Who are you?", "I am a small language model. I know capitals, chemical symbols, planets, opposites, days and months."},
    {"What do you know?", "I know capitals, chemical symbols, planets, opposites, days and months. I can also add and spell."},
    {"Can I ask you something?", "Yes, ask me about capitals, planets, opposites, days or months."},
}};
constexpr std::array<std::pair<const char*, const char*>, 3> kThanks = {{
    {"Thank you!", "You are welcome."},
    {"Thanks.", "You are welcome."},
    {"Goodbye!", "Goodbye!"},
}};

void say(Conversation& conversation, const std::pair<const char*, const char*>& exchange) {
  conversation.messages.emplace_back("user", exchange.first);
  conversation.messages.emplace_back("assistant", exchange.second);
}

// Training conversations: turns in a shuffled order that begins again when all have come.
std::vector<TaskExample> fact_conversations(std::int64_t size, std::uint64_t seed) {
  std::vector<Turn> turns = fact_turns(TaskSplit::kTrain);
  Rng rng(derive_seed(seed, "toy facts to train on"));
  std::size_t at = turns.size();
  std::vector<TaskExample> examples(static_cast<std::size_t>(size));
  for (TaskExample& example : examples) {
    Conversation& conversation = example.conversation;
    if (rng.below(12) == 0) say(conversation, kGreetings[rng.below(kGreetings.size())]);
    const std::uint64_t draw = rng.below(20);
    for (int left = draw < 12 ? 1 : draw < 17 ? 2 : 3; left > 0; --left) {
      if (at == turns.size()) {
        rng.shuffle(turns);
        at = 0;
      }
      conversation.messages.emplace_back("user", turns[at].question);
      conversation.messages.emplace_back("assistant", turns[at].answer);
      example.group = turns[at++].topic;
    }
    if (rng.below(20) == 0) say(conversation, kThanks[rng.below(kThanks.size())]);
  }
  return examples;
}

TaskExample example_of(const Turn& turn) {
  TaskExample example;
  example.conversation.messages = {{"user", turn.question}, {"assistant", turn.answer}};
  example.group = turn.topic;
  example.rule = AnswerRule::kStated;
  example.answers = turn.stated;
  return example;
}

std::vector<TaskExample> fact_questions(std::int64_t size, std::uint64_t seed) {
  std::map<std::string, std::vector<Turn>> by_topic;
  for (Turn& turn : fact_turns(TaskSplit::kTest)) by_topic[turn.topic].push_back(std::move(turn));
  Rng rng(derive_seed(seed, "toy facts to test"));
  for (auto& [topic, turns] : by_topic) rng.shuffle(turns);
  std::vector<TaskExample> examples;
  for (bool any = true; any;) {
    any = false;
    for (auto& [topic, turns] : by_topic) {
      if (turns.empty() || static_cast<std::int64_t>(examples.size()) == size) continue;
      examples.push_back(example_of(turns.back()));
      turns.pop_back();
      any = true;
    }
  }
  return examples;
}

struct Operation {
  char sign;
  int largest;
  std::vector<std::string> train, test;  // {a} and {c}
};

const std::vector<Operation>& operations() {
  static const std::vector<Operation> all = {
      {'+',
       99,
       {"What is {a} plus {c}?", "What is {a} + {c}?", "How much is {a} plus {c}?", "Add {a} and {c}.", "Calculate {a} + {c}.",
        "What do you get if you add {a} and {c}?"},
       {"What is the sum of {a} and {c}?", "Can you add {a} and {c}?", "How much is {a} + {c}?"}},
      {'-',
       99,
       {"What is {a} minus {c}?", "What is {a} - {c}?", "How much is {a} minus {c}?", "Calculate {a} - {c}.",
        "What do you get if you subtract {c} from {a}?"},
       {"Can you subtract {c} from {a}?", "How much is {a} - {c}?", "Tell me what {a} minus {c} is."}},
      {'*',
       12,
       {"What is {a} times {c}?", "What is {a} * {c}?", "How much is {a} times {c}?", "Multiply {a} by {c}.",
        "Calculate {a} * {c}."},
       {"Can you multiply {a} by {c}?", "How much is {a} * {c}?", "What do you get if you multiply {a} by {c}?"}},
  };
  return all;
}

// One pair of numbers in eight is for tests alone.
bool is_for_tests(const Operation& operation, std::int64_t a, std::int64_t c) {
  return derive_seed(7, fmt::format("{}{}{}", a, operation.sign, c)) % 8 == 0;
}

TaskExample arithmetic_example(Rng& rng, TaskSplit split) {
  const Operation& operation = operations()[rng.below(operations().size())];
  std::int64_t a = 0, c = 0;
  do {
    a = rng.between(0, operation.largest);
    c = rng.between(0, operation.sign == '-' ? a : operation.largest);
  } while (is_for_tests(operation, a, c) != (split == TaskSplit::kTest));
  const std::int64_t result = operation.sign == '+' ? a + c : operation.sign == '-' ? a - c : a * c;
  const std::string question = rng.choose(split == TaskSplit::kTrain ? operation.train : operation.test);
  TaskExample example;
  example.conversation.messages.emplace_back("user", fill_phrasing(question, {std::to_string(a), "", std::to_string(c)}));
  example.answers = {fmt::format("The answer is {}.", result)};
  example.conversation.messages.emplace_back("assistant", std::vector<MessagePart>{
                                                              {PartType::kPython, fmt::format("{}{}{}", a, operation.sign, c)},
                                                              {PartType::kPythonOutput, std::to_string(result)},
                                                              {PartType::kText, example.answers[0]}});
  example.group = "arithmetic";
  example.rule = AnswerRule::kExact;
  return example;
}

// Words of one piece in small letters: those that the corpus spells, then opposites and elements, which it only uses.
const std::vector<std::string>& spelled_words() {
  static const std::vector<std::string> words = [] {
    std::vector<std::string> all;
    std::set<std::string> seen;
    const auto add = [&](const std::string& word) {
      if (std::all_of(word.begin(), word.end(), [](char c) { return c >= 'a' && c <= 'z'; }) && seen.insert(word).second) {
        all.push_back(word);
      }
    };
    for (const ToyFact& fact : toy_relations()[kSpelling].facts) add(fact.a);
    for (const ToyRelation& relation : toy_relations()) {
      if (relation.topic != "opposites" && relation.topic != "symbols") continue;
      for (const ToyFact& fact : relation.facts) add(fact.a);
    }
    return all;
  }();
  return words;
}

TaskExample spelling_example(Rng& rng, TaskSplit split) {
  const ToyQuestions& questions = toy_questions()[kSpelling];
  const std::string& word = rng.choose(spelled_words());
  const ToyFact fact{word, fmt::format("{}", fmt::join(word, ", ")), ""};
  const Turn turn = turn_of(kSpelling, fact, rng.choose(split == TaskSplit::kTrain ? questions.train : questions.test));
  TaskExample example = example_of(turn);
  example.rule = AnswerRule::kExact;
  example.answers = {turn.answer};
  return example;
}

std::int64_t size_of(const ToyTaskOptions& options, std::int64_t train, std::int64_t test) {
  if (options.size < 0) throw ConfigError(fmt::format("size of a toy task is {}, but must not be negative", options.size));
  return options.size > 0 ? options.size : options.split == TaskSplit::kTrain ? train : test;
}

template <typename Make>
std::shared_ptr<const Task> drawn(const std::string& name, const ToyTaskOptions& options, std::int64_t size, Make make) {
  std::vector<TaskExample> examples;
  for (std::int64_t i = 0; i < size; ++i) {
    Rng rng(derive_seed(options.seed, fmt::format("{} {} {}", name, options.split == TaskSplit::kTrain ? "train" : "test", i)));
    examples.push_back(make(rng, options.split));
  }
  return std::make_shared<ExampleList>(name, TaskKind::kGenerative, std::move(examples));
}

}  // namespace

std::shared_ptr<const Task> toy_facts(const ToyTaskOptions& options) {
  const std::int64_t size = size_of(options, 3000, 240);
  const bool train = options.split == TaskSplit::kTrain;
  return std::make_shared<ExampleList>("toy-facts", train ? TaskKind::kConversation : TaskKind::kGenerative,
                                       train ? fact_conversations(size, options.seed) : fact_questions(size, options.seed));
}

std::shared_ptr<const Task> toy_arithmetic(const ToyTaskOptions& options) {
  return drawn("toy-arithmetic", options, size_of(options, 2000, 200), arithmetic_example);
}

std::shared_ptr<const Task> toy_spelling(const ToyTaskOptions& options) {
  return drawn("toy-spelling", options, size_of(options, 1500, 200), spelling_example);
}

}  // namespace nanochat
