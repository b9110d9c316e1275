#include "training/finetune/sampled_answers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/interrupt.h"
#include "model/gpt.h"
#include "tasks/toy_tasks.h"
#include "tokenizer/special_tokens.h"
#include "training/finetune/testing_base.h"

namespace nanochat {
namespace {

class SampledAnswers : public ::testing::Test {
 protected:
  SampledAnswers() {
    reset_interrupt_for_testing();
    model_.init_weights(1);
    const auto task = toy_spelling({.size = 3});
    for (std::int64_t i = 0; i < 3; ++i) questions_.push_back(task->example(i));
  }
  testing::TemporaryDirectory folder_;
  std::shared_ptr<const Tokenizer> tokenizer_ = testing::byte_tokenizer(folder_.path());
  Gpt model_{GptConfig::from_depth(1, 265, 64), at::kFloat};
  std::vector<TaskExample> questions_;
};

TEST_F(SampledAnswers, AreAsManyAsAskedForAndTheSameForASeed) {
  AnswerOptions options{.samples = 4, .max_tokens = 8, .temperature = 1.0, .seed = 3};
  const auto once = sample_answers(model_, *tokenizer_, questions_, options);
  options.max_running = 2;
  const auto again = sample_answers(model_, *tokenizer_, questions_, options);
  options.seed = 4;
  const auto other = sample_answers(model_, *tokenizer_, questions_, options);
  ASSERT_EQ(once.size(), 3U);
  bool differs = false;
  for (std::size_t q = 0; q < 3; ++q) {
    EXPECT_EQ(once[q].prompt, render_for_completion(*tokenizer_, questions_[q].conversation));
    ASSERT_EQ(once[q].answers.size(), 4U);
    EXPECT_NE(once[q].answers[0].ids, once[q].answers[1].ids);
    for (std::size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(once[q].answers[i].ids, again[q].answers[i].ids);
      EXPECT_EQ(once[q].answers[i].forced.size(), once[q].answers[i].ids.size());
      EXPECT_LE(once[q].answers[i].ids.size(), 8U);
      EXPECT_FALSE(once[q].answers[i].right);
      differs = differs || once[q].answers[i].ids != other[q].answers[i].ids;
    }
  }
  EXPECT_TRUE(differs);
}

TEST_F(SampledAnswers, AQuestionThatFillsTheContextIsWrong) {
  questions_[1].conversation.messages[0] = Message("user", std::string(100, 'x'));
  const auto answered = sample_answers(model_, *tokenizer_, questions_, {.samples = 2, .max_tokens = 4});
  ASSERT_EQ(answered.size(), 3U);
  EXPECT_TRUE(answered[1].answers[1].ids.empty());
  EXPECT_FALSE(answered[1].answers[1].right);
  EXPECT_FALSE(answered[2].answers[0].ids.empty());
}

}  // namespace
}  // namespace nanochat
