#include "tasks/spelling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "core/errors.h"
#include "core/testing.h"
#include "tasks/answers.h"

namespace nanochat {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> words() { return {"apple", "banana", "cherry", "strawberry", "kiwi", "plum", "mississippi"}; }

std::string question(const TaskExample& example) { return example.conversation.messages[0].joined_text(); }

// The assistant's answer as Tokenizer::decode gives it, calls included.
std::string answer(const TaskExample& example) {
  std::string text;
  for (const MessagePart& part : example.conversation.messages[1].parts) {
    text += part.type == PartType::kText     ? part.text
            : part.type == PartType::kPython ? "<|python_start|>" + part.text + "<|python_end|>"
                                             : "<|output_start|>" + part.text + "<|output_end|>";
  }
  return text;
}

// Words, letters and variants as CPython draws them for the reference's classes from the same list.
TEST(SpellingBee, DrawsAsTheReference) {
  const auto train = spelling_bee(words(), 100, TaskSplit::kTrain);
  const auto test = spelling_bee(words(), 100, TaskSplit::kTest);
  EXPECT_EQ(question(train->example(0)), "count the \"s\" in the word 'mississippi'?");
  EXPECT_EQ(question(train->example(3)), "In the word \"banana\", count the letter 'a'");
  EXPECT_EQ(question(test->example(0)), "How many 'e' does the word cherry have?");
  EXPECT_THAT(train->example(0).answers, ElementsAre("4"));
  EXPECT_THAT(train->example(2).answers, ElementsAre("0")) << "b in mississippi";
  EXPECT_THAT(test->example(1).answers, ElementsAre("1")) << "l in apple";
}

TEST(SpellingBee, CountsByHandAndByCall) {
  const auto task = spelling_bee(words(), 300, TaskSplit::kTrain);
  std::set<std::string> questions;
  for (std::int64_t i = 0; i < task->size(); ++i) {
    const TaskExample example = task->example(i);
    EXPECT_TRUE(is_right_answer(example, answer(example)));
    EXPECT_THAT(answer(example), HasSubstr("#### " + example.answers[0]));
    questions.insert(question(example));
    EXPECT_EQ(question(example).find('{'), std::string::npos) << question(example);
  }
  EXPECT_GT(questions.size(), 250U);
  const std::string kiwi = answer(spelling_bee({"kiwi"}, 1, TaskSplit::kTrain)->example(0));
  EXPECT_THAT(kiwi, HasSubstr("kiwi:k,i,w,i\n"));
  EXPECT_THAT(kiwi, HasSubstr("'kiwi'.count('"));
  EXPECT_THAT(answer(spelling_bee({"don't"}, 1, TaskSplit::kTrain)->example(0)), HasSubstr("\"don't\".count('"));
}

TEST(SimpleSpelling, DrawsAsTheReference) {
  const auto train = simple_spelling(words(), 6, TaskSplit::kTrain);
  const std::vector<std::string> drawn = {"plum", "strawberry", "plum", "strawberry", "strawberry", "mississippi"};
  for (std::int64_t i = 0; i < 6; ++i)
    EXPECT_EQ(question(train->example(i)), "Spell the word: " + drawn[static_cast<std::size_t>(i)]);
  const auto test = simple_spelling(words(), 3, TaskSplit::kTest);
  EXPECT_EQ(question(test->example(1)), "Spell the word: banana");
  EXPECT_EQ(answer(test->example(1)), "banana:b,a,n,a,n,a");
  EXPECT_TRUE(is_right_answer(test->example(1), "banana:b,a,n,a,n,a"));
  EXPECT_FALSE(is_right_answer(test->example(1), "banana:b,a,n,a,n"));
  EXPECT_EQ(answer(simple_spelling({"\xc3\xa9t\xc3\xa9"}, 1, TaskSplit::kTrain)->example(0)),
            "\xc3\xa9t\xc3\xa9:\xc3\xa9,t,\xc3\xa9");
}

TEST(Words, AreALineEach) {
  const testing::TemporaryDirectory folder;
  testing::write_text(folder / "words.txt", "one\r\n\n two \nthree");
  EXPECT_THAT(read_words(folder / "words.txt"), ElementsAre("one", "two", "three"));
  testing::write_text(folder / "bad.txt", "one\n\xff\n");
  EXPECT_THROW(read_words(folder / "bad.txt"), DataError);
  testing::write_text(folder / "none.txt", "\n");
  EXPECT_THROW(read_words(folder / "none.txt"), DataError);
  EXPECT_THROW(spelling_bee({}, 5, TaskSplit::kTrain), ConfigError);
  EXPECT_THROW(simple_spelling({"a"}, 0, TaskSplit::kTrain), ConfigError);
}

}  // namespace
}  // namespace nanochat
