#pragma once
// pass@k: the probability that one of k answers to a question is right, on average over questions.

#include <cstdint>
#include <vector>

#include "training/finetune/sampled_answers.h"

namespace nanochat {

struct PassRate {
  double value = 0.0;
  double standard_error = 0.0;  // over questions: their answers are not independent of each other
};

// From n >= k answers to each question, c of them right: 1 - C(n-c, k) / C(n, k), without bias and with less scatter than
// to look at the first k alone (Chen et al. 2021, Evaluating Large Language Models Trained on Code, section 2.1). 0 where
// there are no questions.
PassRate pass_at(std::int64_t k, const std::vector<AnsweredQuestion>& questions);

}  // namespace nanochat
