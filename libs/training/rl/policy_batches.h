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

// Answers with their prompts, packed as documents, in as few batches of at most device_batch_size rows of `sequence_len`
// as it takes, all of one size, the last filled up. Targets are the drawn tokens; weights are the factor of each one's
// negative log-probability in the loss. Answers without an advantage, such as those to a question that all got right, are
// left out: their gradient is zero. No batches when none is left. questions_of_step: of all processes; 0: these are all.
std::vector<TokenBatch> policy_batches(const std::vector<AnsweredQuestion>& questions, std::int64_t device_batch_size,
                                       std::int64_t sequence_len, TokenId padding_id, std::int64_t questions_of_step = 0);

double mean_reward(const AnsweredQuestion& question);

}  // namespace nanochat
