#include "training/rl/policy_batches.h"

#include <ATen/ops/from_blob.h>

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/testing.h"
#include "training/trainer/batch_tensors.h"

namespace nanochat {
namespace {

using ::testing::ElementsAre;

constexpr TokenId kPad = 77;

SampledAnswer answer(std::vector<TokenId> ids, bool right, std::vector<std::uint8_t> forced = {}) {
  if (forced.empty()) forced.assign(ids.size(), 0);
  return {std::move(ids), std::move(forced), right};
}

TEST(PolicyBatches, WeighDrawnTokensByTheirAdvantage) {
  // One of two is right: advantages 1/2 and -1/2; five tokens were drawn.
  const AnsweredQuestion question{{1, 2}, {answer({10, 11, 12, 13}, true, {0, 1, 1, 0}), answer({20, 21, 22}, false)}};
  const auto batches = policy_batches({question}, 1, 12, kPad);
  ASSERT_EQ(batches.size(), 1U);
  const TokenBatch& tokens = batches[0];
  EXPECT_THAT(tokens.inputs, ElementsAre(1, 2, 10, 11, 12, 1, 2, 20, 21, kPad, kPad, kPad));
  EXPECT_THAT(tokens.targets, ElementsAre(-1, 10, -1, -1, 13, -1, 20, 21, 22, -1, -1, -1));
  EXPECT_THAT(tokens.documents, ElementsAre(0, 5, 9, 12));
  const float up = 0.5F / 5.0F, down = -up;
  EXPECT_THAT(batches[0].weights, ElementsAre(0, up, 0, 0, up, 0, down, down, down, 0, 0, 0));
}

TEST(PolicyBatches, QuestionsWeighTheSameHoweverLongTheirAnswers) {
  const AnsweredQuestion brief{{1}, {answer({10}, true), answer({20}, false)}};
  const AnsweredQuestion lengthy{{1}, {answer({30, 31, 32, 33}, true), answer({40, 41, 42, 43}, false)}};
  double of_brief = 0.0, of_lengthy = 0.0;
  for (const TokenBatch& batch : policy_batches({brief, lengthy}, 2, 8, kPad)) {
    for (std::size_t i = 0; i < batch.weights.size(); ++i) {
      const TokenId target = batch.targets[i];
      if (target >= 0) (target < 30 ? of_brief : of_lengthy) += std::abs(batch.weights[i]);
    }
  }
  EXPECT_NEAR(of_brief, 0.25, 1e-6);  // mean |advantage| of 1/2, two questions
  EXPECT_NEAR(of_lengthy, 0.25, 1e-6);
}

TEST(PolicyBatches, QuestionsThatAllGotRightOrWrongTeachNothing) {
  const AnsweredQuestion right{{1}, {answer({10}, true), answer({11}, true)}},
      wrong{{1}, {answer({10}, false), answer({}, false)}};
  EXPECT_TRUE(policy_batches({right, wrong}, 2, 8, kPad).empty());
  EXPECT_EQ(mean_reward(right), 1.0);
  EXPECT_EQ(mean_reward(wrong), 0.0);
}

TEST(PolicyBatches, AnswersBeyondABatchMakeAnother) {
  AnsweredQuestion question{{1, 2, 3}, {}};
  for (TokenId id = 10; id < 15; ++id) question.answers.push_back(answer({id, id, id}, id == 10));
  const auto batches = policy_batches({question}, 2, 6, kPad);
  ASSERT_EQ(batches.size(), 3U);  // five rows, two at a time
  EXPECT_EQ(policy_batches({question}, 4, 6, kPad).front().rows, 3) << "two of three, rather than four and one";
  EXPECT_EQ(policy_batches({question}, 16, 6, kPad).front().rows, 5) << "no more than there are";
  for (const TokenBatch& batch : batches) {
    EXPECT_EQ(batch.inputs.size(), 12U);
    EXPECT_EQ(batch.weights.size(), 12U);
    EXPECT_EQ(batch.documents.back(), 12);
  }
}

// The gradient of the batches is that of the formula in the header, written out answer by answer.
TEST(PolicyBatches, GiveTheGradientOfTheFormula) {
  constexpr double kTolerance = 1e-5;
  const GptConfig config = GptConfig::from_depth(2, 90, 32);
  Gpt packed = testing::random_model(config, at::kFloat, 1), alone = testing::random_model(config, at::kFloat, 1);
  std::vector<AnsweredQuestion> questions = {
      {{1, 2, 3}, {answer({4, 5, 6}, true), answer({7, 8}, false), answer({9, 10, 11, 12}, false, {0, 1, 0, 0})}},
      {{13, 14}, {answer({15}, false), answer({16, 17, 18}, true)}}};
  packed.zero_grad();
  for (const TokenBatch& batch : policy_batches(questions, 2, 16, kPad)) {
    packed.forward_backward(inputs_of(batch), targets_of(batch), weights_of(batch), documents_of(batch));
  }
  alone.zero_grad();
  const double drawn[] = {8.0, 4.0}, mean[] = {1.0 / 3.0, 0.5};
  for (std::size_t q = 0; q < 2; ++q) {
    for (const SampledAnswer& one : questions[q].answers) {
      std::vector<std::int32_t> all = questions[q].prompt;
      all.insert(all.end(), one.ids.begin(), one.ids.end());
      TokenBatch batch{
          1, static_cast<std::int64_t>(all.size()) - 1, {all.begin(), all.end() - 1}, {all.begin() + 1, all.end()}, {}};
      std::vector<float> scale(batch.inputs.size(), 0.0F);
      for (std::size_t i = 0; i < scale.size(); ++i) {
        if (i + 1 < questions[q].prompt.size() || one.forced[i + 1 - questions[q].prompt.size()] != 0) continue;
        scale[i] = static_cast<float>(((one.right ? 1.0 : 0.0) - mean[q]) / drawn[q] / 2.0);
      }
      alone.forward_backward(inputs_of(batch), targets_of(batch),
                             at::from_blob(scale.data(), {1, batch.sequence_len}, at::kFloat));
    }
  }
  for (std::size_t i = 0; i < packed.parameters().size(); ++i) {
    const at::Tensor expected = alone.parameters()[i].grad;
    EXPECT_LT(packed.parameters()[i].grad.sub(expected).norm().item<double>(), kTolerance * expected.norm().item<double>())
        << packed.parameters()[i].name;
  }
}

}  // namespace
}  // namespace nanochat
