#pragma once
// Sampled answers as training batches for REINFORCE (Williams 1992), without a baseline network, a trust
// region or a KL penalty. Source: scripts/chat_rl.py of the reference, which calls it simplified GRPO.
//
// The advantage of an answer is its reward minus the mean reward of all answers to its question, the same for each
// of its tokens. The loss of a question is -sum(advantage * log p) over the sampled tokens of all its answers,
// divided by their number. The loss of a step is the mean over questions. Tokens forced by the calculator, the
// prompt and the token that ends an answer are not trained. (The reference divides by the tokens of each pass of
// device_batch_size answers, so its result depends on that size. With as many answers as rows, both are equal.)

#include <cstdint>
#include <vector>

#include "data/batches/batch.h"
#include "training/finetune/sampled_answers.h"

namespace nanochat {

// Packs answers with their prompts as documents into as few batches as possible. All batches have the same shape, at most
// device_batch_size rows of `sequence_len`; the last one is padded. Targets are the sampled tokens. A weight is the factor of a
// token's negative log-probability in the loss. Answers whose advantage is zero (for example if all answers to a question are
// correct) are omitted, because their gradient is zero. The result is empty if no answer is left. questions_of_step: the number
// of questions of all processes; 0: only these.
std::vector<TokenBatch> policy_batches(const std::vector<AnsweredQuestion>& questions, std::int64_t device_batch_size,
                                       std::int64_t sequence_len, TokenId padding_id, std::int64_t questions_of_step = 0);

double mean_reward(const AnsweredQuestion& question);

}  // namespace nanochat
