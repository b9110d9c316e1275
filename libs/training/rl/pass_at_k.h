#pragma once
// pass@k: the probability that at least one of k answers to a question is correct, averaged over questions.

#include <cstdint>
#include <vector>

#include "training/finetune/sampled_answers.h"

namespace nanochat {

struct PassRate {
  double value = 0.0;
  double standard_error = 0.0;  // over questions, because answers to one question are not independent
};

// From n >= k answers to each question, c of them correct: 1 - C(n-c, k) / C(n, k). This is
// unbiased and has less variance than using the first k answers only (Chen et al. 2021,
// Evaluating Large Language Models Trained on Code, section 2.1). 0 if there are no questions.
PassRate pass_at(std::int64_t k, const std::vector<AnsweredQuestion>& questions);

}  // namespace nanochat
