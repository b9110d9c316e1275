#include "evaluation/prompt_scoring.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/log_softmax.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/random.h"
#include "model/gpt.h"
#include "model/testing.h"
#include "model/testing_config.h"

namespace nanochat {
namespace {

// Attention over a cache sums in another order than attention over a whole row.
constexpr double kTolerance = 2e-5;
constexpr std::int64_t kVocab = 60, kContext = 32;

Gpt small_model() { return testing::random_model(testing::grouped_config(kVocab, kContext), at::kFloat, 3); }

std::vector<TokenId> random_tokens(Rng& rng, std::int64_t length) {
  std::vector<TokenId> tokens;
  for (std::int64_t i = 0; i < length; ++i) tokens.push_back(static_cast<TokenId>(rng.below(kVocab)));
  return tokens;
}

at::Tensor alone(Gpt& model, std::vector<TokenId> tokens) {
  return model.forward(at::from_blob(tokens.data(), {1, static_cast<std::int64_t>(tokens.size())}, at::kInt)).select(0, 0);
}

// One sequence by itself, every logit made: the plain way.
SpanScore plain_score(Gpt& model, const PromptSpan& span) {
  const at::Tensor logits = alone(model, span.tokens);
  const at::Tensor log_probabilities = at::log_softmax(logits, 1);
  SpanScore score;
  for (std::int64_t i = span.start; i < span.end; ++i) {
    const TokenId target = span.tokens[static_cast<std::size_t>(i)];
    score.mean_loss -= log_probabilities[i - 1][target].item<double>() / static_cast<double>(span.end - span.start);
    score.greedy = score.greedy && logits[i - 1].argmax().item<std::int64_t>() == target;
  }
  return score;
}

// Questions of every shape: long and short common beginnings, none, options of unequal length, a single option.
std::vector<Question> random_questions(Gpt& model, std::size_t count) {
  Rng rng(7);
  std::vector<Question> questions;
  for (std::size_t q = 0; q < count; ++q) {
    const std::vector<TokenId> prefix = random_tokens(rng, rng.between(1, q % 5 == 0 ? 3 * kContext : 20));
    Question question;
    for (std::int64_t i = 0; i < rng.between(1, 4); ++i) {
      PromptSpan span{prefix, static_cast<std::int64_t>(prefix.size()), 0};
      if (q % 7 == 3) span.tokens[0] = static_cast<TokenId>(i);  // nothing in common
      if (q % 3 == 1) span.start = std::max<std::int64_t>(1, span.start - 2);
      const auto rest = random_tokens(rng, rng.between(1, 6));
      span.tokens.insert(span.tokens.end(), rest.begin(), rest.end());
      span.end = static_cast<std::int64_t>(span.tokens.size());
      if (q % 4 == 2 && i == 0) {  // what the model itself would say
        span.tokens.resize(prefix.size() + 1);
        span.start = static_cast<std::int64_t>(prefix.size());
        span.end = span.start + 1;
        span.tokens.back() = static_cast<TokenId>(alone(model, prefix)[span.start - 1].argmax().item<std::int64_t>());
      }
      question.options.push_back(std::move(span));
    }
    questions.push_back(std::move(question));
  }
  // As long as a prompt may be, beside one of the same length that has more to add.
  for (const std::int64_t rest : {2, 20}) {
    PromptSpan span{random_tokens(rng, longest_prompt(model)), longest_prompt(model) - rest, longest_prompt(model)};
    questions.push_back({{span}});
  }
  return questions;
}

TEST(ScoreQuestions, EqualsEachSequenceByItself) {
  Gpt model = small_model();
  const std::vector<Question> questions = random_questions(model, 24);
  std::vector<std::vector<SpanScore>> expected;
  std::int64_t greedy = 0;
  for (const Question& question : questions) {
    auto& scores = expected.emplace_back();
    for (const PromptSpan& span : question.options) scores.push_back(plain_score(model, span));
    for (const SpanScore& score : scores) greedy += score.greedy ? 1 : 0;
  }
  EXPECT_GE(greedy, 3) << "or the argmax is hardly tested";
  for (const std::int64_t budget : {1, 64, 100'000}) {
    for (const std::int64_t logit_bytes : {std::int64_t{1}, std::int64_t{1} << 30}) {
      std::vector<int> seen(questions.size());
      score_questions(model, questions, {budget, logit_bytes}, [&](std::size_t q, const std::vector<SpanScore>& scores) {
        ++seen[q];
        ASSERT_EQ(scores.size(), expected[q].size());
        for (std::size_t i = 0; i < scores.size(); ++i) {
          EXPECT_NEAR(scores[i].mean_loss, expected[q][i].mean_loss, kTolerance) << q << " " << i;
          EXPECT_EQ(scores[i].greedy, expected[q][i].greedy) << q << " " << i;
        }
      });
      EXPECT_EQ(seen, std::vector<int>(questions.size(), 1));
    }
  }
}

TEST(ScoreQuestions, ScoresEqualOptionsEquallyAndEmptySpansAsNan) {
  Gpt model = small_model();
  const std::vector<Question> questions = {{{{{1, 2, 3}, 2, 3}, {{1, 2, 4}, 2, 3}, {{1, 2, 3}, 2, 3}, {{1, 2}, 2, 2}}}};
  score_questions(model, questions, {}, [&](std::size_t, const std::vector<SpanScore>& scores) {
    EXPECT_EQ(scores[0].mean_loss, scores[2].mean_loss);
    EXPECT_NE(scores[0].mean_loss, scores[1].mean_loss);
    EXPECT_TRUE(std::isnan(scores[3].mean_loss));
  });
}

TEST(ScoreNextToken, EqualsEachPromptByItself) {
  Gpt model = small_model();
  Rng rng(5);
  std::vector<std::vector<TokenId>> prompts;
  for (int i = 0; i < 20; ++i) prompts.push_back(random_tokens(rng, rng.between(1, 2 * kContext)));
  for (const std::int64_t budget : {1, 50, 100'000}) {
    std::size_t seen = 0;
    score_next_token(model, prompts, {budget, 1 << 20}, [&](std::size_t p, const at::Tensor& logits) {
      ++seen;
      const at::Tensor expected = alone(model, prompts[p]).select(0, static_cast<std::int64_t>(prompts[p].size()) - 1);
      EXPECT_LE(logits.sub(expected).abs().max().item<double>(), kTolerance);
    });
    EXPECT_EQ(seen, prompts.size());
  }
}

TEST(BestOption, IsPythonsMinimum) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto best = [](const std::vector<double>& losses) {
    std::vector<SpanScore> scores;
    for (const double loss : losses) scores.push_back({loss, false});
    return best_option(scores);
  };
  EXPECT_EQ(best({2, 1, 1}), 1U);
  EXPECT_EQ(best({nan, 1}), 0U);
  EXPECT_EQ(best({2, nan, 1}), 2U);
}

}  // namespace
}  // namespace nanochat
