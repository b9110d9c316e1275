#pragma once
// A model's own answers to the questions of a task, and whether they are correct; RL learns from them.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tasks/task.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {

class Gpt;

struct AnswerOptions {
  std::int64_t samples = 1;       // number of answers to each question
  std::int64_t max_tokens = 256;  // maximum number of tokens in an answer
  double temperature = 0.0;       // 0: the most likely token
  std::int64_t top_k = 0;
  std::uint64_t seed = 42;
  std::int64_t max_running = 64;    // sequences that are generated at a time
};

struct SampledAnswer {
  std::vector<TokenId> ids;           // without the token that ended the answer
  std::vector<std::uint8_t> forced;   // one per token; 1: forced by the calculator
  bool right = false;
};

struct AnsweredQuestion {
  std::vector<TokenId> prompt;
  std::vector<SampledAnswer> answers;
};

// Generates with the calculator on. The seed determines every answer, up to rounding. After an interrupt,
// answers are incomplete. A question that leaves no room for an answer in the context has empty, wrong answers.
std::vector<AnsweredQuestion> sample_answers(Gpt& model, const Tokenizer& tokenizer, const std::vector<TaskExample>& questions,
                                             const AnswerOptions& options);

}  // namespace nanochat
