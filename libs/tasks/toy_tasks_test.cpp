#include "tasks/toy_tasks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <set>

#include "core/errors.h"
#include "data/toy/toy.h"
#include "data/toy/toy_facts.h"
#include "tasks/answers.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::set<std::string> questions(const Task& task) {
  std::set<std::string> all;
  for (std::int64_t i = 0; i < task.size(); ++i) {
    for (const Message& message : task.example(i).conversation.messages) {
      if (message.role == "user") all.insert(message.joined_text());
    }
  }
  return all;
}

TEST(ToyQuestions, AreAskedInOtherPhrasingsOfOneRelationEach) {
  ASSERT_EQ(toy_questions().size(), toy_relations().size());
  std::set<std::string> all;
  for (std::size_t i = 0; i < toy_questions().size(); ++i) {
    const ToyQuestions& these = toy_questions()[i];
    EXPECT_EQ(these.train.empty(), toy_relations()[i].topic == "arithmetic");
    EXPECT_EQ(these.test.empty(), these.train.empty());
    for (const auto* phrasings : {&these.train, &these.test}) {
      for (const std::string& phrasing : *phrasings) {
        EXPECT_THAT(phrasing, Not(HasSubstr("{b}")));
        for (const ToyFact& fact : toy_relations()[i].facts) {
          EXPECT_TRUE(all.insert(fill_phrasing(phrasing, fact)).second) << fill_phrasing(phrasing, fact);
        }
      }
    }
  }
}

// What is asked in tests is new; what answers it is not.
TEST(ToyFacts, TestsAskWhatNeitherTheCorpusNorTrainingAsks) {
  const auto train = questions(*toy_facts({}));
  const auto test_task = toy_facts({.split = TaskSplit::kTest, .size = 100'000});
  std::string corpus;
  generate_toy_corpus({8'000'000, 42}, [&](const std::string& document) { corpus += document + "\n"; });
  for (std::int64_t i = 0; i < test_task->size(); ++i) {
    const TaskExample example = test_task->example(i);
    const std::string question = example.conversation.messages[0].joined_text();
    EXPECT_FALSE(train.contains(question)) << question;
    if (i % 11 == 0) {
      EXPECT_EQ(corpus.find(question), std::string::npos) << question;
      EXPECT_NE(corpus.find(example.conversation.messages[1].joined_text()), std::string::npos)
          << example.conversation.messages[1].joined_text();
    }
    EXPECT_TRUE(is_right_answer(example, example.conversation.messages[1].joined_text()));
    EXPECT_FALSE(is_right_answer(example, "Nobody knows."));
  }
  EXPECT_GT(test_task->size(), 700);
}

TEST(ToyFacts, AreManyAndCoverEveryFact) {
  const auto task = toy_facts({});
  EXPECT_EQ(task->size(), 3000);
  EXPECT_EQ(task->kind(), TaskKind::kConversation);
  std::size_t turns = 0;
  std::set<std::string> answers;
  for (std::int64_t i = 0; i < task->size(); ++i) {
    const Conversation conversation = task->example(i).conversation;
    check_conversation(conversation);
    turns += conversation.messages.size() / 2;
    for (const Message& message : conversation.messages) answers.insert(message.joined_text());
  }
  EXPECT_GT(turns, 4000U);
  for (const ToyFact& fact : toy_relations()[0].facts) {
    EXPECT_TRUE(answers.contains(fill_phrasing("The capital of {a} is {b}.", fact))) << fact.a;
  }
  EXPECT_EQ(toy_facts({})->example(7).conversation, task->example(7).conversation);
  EXPECT_NE(toy_facts({.seed = 1})->example(7).conversation, task->example(7).conversation);
  EXPECT_THROW(toy_facts({.size = -1}), ConfigError);
}

TEST(ToyFacts, TestsAreEvenOverTopics) {
  const auto task = toy_facts({.split = TaskSplit::kTest});
  EXPECT_EQ(task->size(), 240);
  EXPECT_EQ(task->kind(), TaskKind::kGenerative);
  std::map<std::string, int> topics;
  for (std::int64_t i = 0; i < task->size(); ++i) ++topics[task->example(i).group];
  EXPECT_EQ(topics.size(), 7U);
  for (const auto& [topic, count] : topics) EXPECT_NEAR(count, 34, 1) << topic;
}

TEST(ToyArithmetic, IsRightAndSplitByNumbersAndPhrasings) {
  std::set<std::string> calls[2], asked[2];
  for (const TaskSplit split : {TaskSplit::kTrain, TaskSplit::kTest}) {
    const auto task = toy_arithmetic({.split = split});
    EXPECT_EQ(task->size(), split == TaskSplit::kTrain ? 2000 : 200);
    for (std::int64_t i = 0; i < task->size(); ++i) {
      const TaskExample example = task->example(i);
      const std::vector<MessagePart>& parts = example.conversation.messages[1].parts;
      ASSERT_EQ(parts.size(), 3U);
      char* end = nullptr;
      const long a = std::strtol(parts[0].text.c_str(), &end, 10);
      const char sign = *end++;
      const long c = std::strtol(end, &end, 10);
      const long result = sign == '+' ? a + c : sign == '-' ? a - c : a * c;
      EXPECT_EQ(parts[1].text, std::to_string(result)) << parts[0].text;
      EXPECT_GE(result, 0);
      EXPECT_TRUE(is_right_answer(example, "The answer is " + parts[1].text + "."));
      EXPECT_FALSE(is_right_answer(example, "The answer is " + parts[1].text + " or 5."));
      calls[split == TaskSplit::kTest].insert(parts[0].text);
      const std::string question = example.conversation.messages[0].joined_text();
      EXPECT_THAT(question, HasSubstr(std::to_string(a)));
      EXPECT_THAT(question, HasSubstr(std::to_string(c)));
      asked[split == TaskSplit::kTest].insert(question);
    }
  }
  for (const std::string& call : calls[1]) EXPECT_FALSE(calls[0].contains(call)) << call;
  for (const std::string& question : asked[1]) EXPECT_FALSE(asked[0].contains(question)) << question;
  EXPECT_GT(calls[0].size(), 1000U);
}

TEST(ToySpelling, SpellsWordsOfTheToyWorld) {
  const auto train = toy_spelling({}), test = toy_spelling({.split = TaskSplit::kTest});
  EXPECT_EQ(train->size(), 1500);
  EXPECT_EQ(test->size(), 200);
  std::set<std::string> answers;
  for (std::int64_t i = 0; i < train->size(); ++i) {
    const TaskExample example = train->example(i);
    EXPECT_TRUE(is_right_answer(example, example.answers[0]));
    answers.insert(example.answers[0]);
  }
  EXPECT_GT(answers.size(), 150U);
  EXPECT_TRUE(answers.contains("The word cat is spelled c, a, t."));
  for (const std::string& question : questions(*test)) EXPECT_FALSE(questions(*train).contains(question)) << question;
}

}  // namespace
}  // namespace nanochat
