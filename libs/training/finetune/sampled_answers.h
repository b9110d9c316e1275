#pragma once
// A model's own answers to the questions of a task, and whether they are right: what RL learns from.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tasks/task.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {

class Gpt;

struct AnswerOptions {
  std::int64_t samples = 1;       // answers to each question
  std::int64_t max_tokens = 256;  // of an answer
  double temperature = 0.0;       // 0: the likeliest
  std::int64_t top_k = 0;
  std::uint64_t seed = 42;
  std::int64_t max_running = 64;    // sequences that are generated at a time
};

struct SampledAnswer {
  std::vector<TokenId> ids;           // without the token that ended it
  std::vector<std::uint8_t> forced;   // one each; 1: put in by the calculator
  bool right = false;
};

struct AnsweredQuestion {
  std::vector<TokenId> prompt;
  std::vector<SampledAnswer> answers;
};

// With the calculator on. The seed fixes every answer, whatever the size of the batch, up to rounding. After an interrupt
// answers are cut short. A question that leaves no room for an answer in the model's context has empty, wrong ones.
std::vector<AnsweredQuestion> sample_answers(Gpt& model, const Tokenizer& tokenizer, const std::vector<TaskExample>& questions,
                                             const AnswerOptions& options);

}  // namespace nanochat
