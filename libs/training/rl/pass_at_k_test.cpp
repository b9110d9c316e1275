#include "training/rl/pass_at_k.h"

#include <gtest/gtest.h>

#include <cmath>

namespace nanochat {
namespace {

AnsweredQuestion question(int right, int wrong) {
  AnsweredQuestion one;
  for (int i = 0; i < right + wrong; ++i) one.answers.push_back({{1}, {0}, i < right});
  return one;
}

TEST(PassAtK, CountsEveryDrawOfKAnswers) {
  const std::vector<AnsweredQuestion> one = {question(1, 3)};
  EXPECT_DOUBLE_EQ(pass_at(1, one).value, 0.25);
  EXPECT_DOUBLE_EQ(pass_at(2, one).value, 0.5);  // three of the six pairs hold the right one
  EXPECT_DOUBLE_EQ(pass_at(4, one).value, 1.0);
  EXPECT_DOUBLE_EQ(pass_at(3, {question(0, 4)}).value, 0.0);
  EXPECT_DOUBLE_EQ(pass_at(1, {}).value, 0.0);
}

TEST(PassAtK, ScattersOverQuestions) {
  const PassRate rate = pass_at(1, {question(1, 3), question(3, 1), question(4, 0), question(0, 4)});
  EXPECT_DOUBLE_EQ(rate.value, 0.5);
  EXPECT_NEAR(rate.standard_error, std::sqrt((2 * 0.0625 + 2 * 0.25) / 3.0 / 4.0), 1e-12);
  EXPECT_EQ(pass_at(1, {question(1, 3)}).standard_error, 0.0) << "of one question nothing is known";
}

}  // namespace
}  // namespace nanochat
