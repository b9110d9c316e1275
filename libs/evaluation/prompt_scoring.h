#pragma once
// What a model makes of many prompts, fast: questions are ordered by length and packed to a budget of tokens; what the
// options of a question share, a long list of examples above all, goes through the model once, and every option
// continues a copy of its keys and values. Logits are made only where they are read.

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
  double mean_loss = 0.0;  // nats a token of the span; NaN for an empty span
  bool greedy = true;      // every token of the span is the one the model thinks most probable
};

struct Question {
  std::vector<PromptSpan> options;  // at least one
};

struct ScoringOptions {
  std::int64_t batch_tokens = 8192;              // positions in one pass, padding included
  std::int64_t logit_bytes = std::int64_t{256} << 20;  // of logits at a time
};

ScoringOptions default_scoring(at::Device device);  // more at a time on a GPU

// Calls done(index of the question, a score for each option) as batches are finished, in any order. Options with the
// same tokens and span get the same score. A model takes prompts of up to ten times its context, see longest_prompt().
// Stops early on an interrupt (core/interrupt.h).
void score_questions(Gpt& model, std::span<const Question> questions, const ScoringOptions& options,
                     const std::function<void(std::size_t, const std::vector<SpanScore>&)>& done);

// The same batching for one answer after each prompt (at least one token each): done(index, float32 logits (V)).
void score_next_token(Gpt& model, std::span<const std::vector<TokenId>> prompts, const ScoringOptions& options,
                      const std::function<void(std::size_t, const at::Tensor&)>& done);

// Ten times the context, as far as the reference's rotary tables reach.
std::int64_t longest_prompt(const Gpt& model);

// The option with the lowest loss: the first of equal ones, and as Python's min(): a NaN is never lower.
std::size_t best_option(std::span<const SpanScore> scores);

}  // namespace nanochat
