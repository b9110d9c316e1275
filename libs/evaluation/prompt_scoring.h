#pragma once
// Fast scoring of many prompts. Questions are sorted by length and packed up to a budget of tokens. The
// common prefix of a question's options, usually a list of examples, goes through the model once, and every
// option continues from a copy of its keys and values. Logits are computed only where they are needed.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include <ATen/core/Tensor.h>

#include "evaluation/core_prompts.h"

namespace nanochat {

class Gpt;

struct SpanScore {
  double mean_loss = 0.0;  // mean loss of the span in nats per token; NaN for an empty span
  bool greedy = true;      // every token of the span is the most likely one
};

struct Question {
  std::vector<PromptSpan> options;  // at least one
};

struct ScoringOptions {
  std::int64_t batch_tokens = 8192;              // positions in one pass, including padding
  std::int64_t logit_bytes = std::int64_t{256} << 20;  // maximum size of logits at a time
};

ScoringOptions default_scoring(at::Device device);  // larger on a GPU

// Calls done(index of the question, a score for each option) as batches finish, in any
// order. Options with the same tokens and span get the same score. A prompt may be up to ten
// times the context; see longest_prompt(). Stops early on an interrupt (core/interrupt.h).
void score_questions(Gpt& model, std::span<const Question> questions, const ScoringOptions& options,
                     const std::function<void(std::size_t, const std::vector<SpanScore>&)>& done);

// The same batching for one next token after each prompt (at least one token each): done(index, float32 logits (V)).
void score_next_token(Gpt& model, std::span<const std::vector<TokenId>> prompts, const ScoringOptions& options,
                      const std::function<void(std::size_t, const at::Tensor&)>& done);

// Ten times the context, as far as the reference's rotary tables reach.
std::int64_t longest_prompt(const Gpt& model);

// The option with the lowest loss, the first of equal ones. As in Python's min(), a NaN is never lower.
std::size_t best_option(std::span<const SpanScore> scores);

}  // namespace nanochat
