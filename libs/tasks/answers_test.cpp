#include "tasks/answers.h"

#include <gtest/gtest.h>

namespace nanochat {
namespace {

TEST(FinalNumber, IsThatBehindTheMark) {
  EXPECT_EQ(final_number("so 5.\n#### 18"), "18");
  EXPECT_EQ(final_number("#### 1,234,567 dollars"), "1234567");
  EXPECT_EQ(final_number("#### -3.5"), "-3.5");
  EXPECT_EQ(final_number("#### 18."), "18.") << "as the reference";
  EXPECT_EQ(final_number("#### x #### 7 #### 8"), "7");
  EXPECT_EQ(final_number("##### 7"), "7");
  EXPECT_EQ(final_number("#### ,"), "") << "as the reference";
  EXPECT_EQ(final_number("####7"), std::nullopt);
  EXPECT_EQ(final_number("#### -"), std::nullopt);
  EXPECT_EQ(final_number("7"), std::nullopt);
  EXPECT_EQ(final_number(""), std::nullopt);
}

TEST(StatesAnswer, TakesWholeWordsAlone) {
  const std::vector<std::string> seven = {"7", "seven"};
  EXPECT_TRUE(states_answer("It is seven.", seven));
  EXPECT_TRUE(states_answer("7", seven));
  EXPECT_TRUE(states_answer("17 or 7", seven));
  EXPECT_FALSE(states_answer("seventeen, 17, 70", seven));
  EXPECT_FALSE(states_answer("Seven", seven));
  EXPECT_FALSE(states_answer("", seven));
  EXPECT_FALSE(states_answer("caf\xc3\xa9s", std::vector<std::string>{"caf"}));
  EXPECT_TRUE(states_answer("the letters c, a, t.", std::vector<std::string>{"c, a, t"}));
  EXPECT_FALSE(states_answer("anything", std::vector<std::string>{""}));
}

TEST(WithoutCalls, LeavesTheText) {
  EXPECT_EQ(without_calls("a<|python_start|>1+1<|python_end|><|output_start|>2<|output_end|>b"), "ab");
  EXPECT_EQ(without_calls("a<|python_start|>1+1"), "a");
  EXPECT_EQ(without_calls("plain"), "plain");
}

TEST(IsRightAnswer, FollowsTheRule) {
  TaskExample example;
  example.answers = {"7"};
  EXPECT_FALSE(is_right_answer(example, "7")) << "no rule";
  example.rule = AnswerRule::kProgram;
  EXPECT_FALSE(is_right_answer(example, "7"));
  example.rule = AnswerRule::kFinalNumber;
  EXPECT_TRUE(is_right_answer(example, "8 #### 7"));
  EXPECT_FALSE(is_right_answer(example, "7"));
  example.rule = AnswerRule::kStated;
  EXPECT_TRUE(is_right_answer(example, "It is 7."));
  EXPECT_FALSE(is_right_answer(example, "<|output_start|>7<|output_end|>It is 8."));
  example.rule = AnswerRule::kExact;
  EXPECT_TRUE(is_right_answer(example, "<|python_start|>3+4<|python_end|><|output_start|>7<|output_end|> 7\n"));
  EXPECT_FALSE(is_right_answer(example, "It is 7."));
  example.rule = AnswerRule::kLetter;
  example.answers = {"B"};
  EXPECT_TRUE(is_right_answer(example, " B"));
  EXPECT_FALSE(is_right_answer(example, "A"));
}

}  // namespace
}  // namespace nanochat
