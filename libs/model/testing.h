#pragma once
// For tests only: the model written the plain way in ATen operations under autograd, after the reference's gpt.py.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "model/gpt.h"

namespace nanochat::testing {

// Leaves that require gradients, by parameter name.
std::unordered_map<std::string, at::Tensor> naive_leaves(const Gpt& model);

// Logits (B, T, vocab_size) of ids int32 (B, T), with a graph behind them.
at::Tensor naive_forward(const GptConfig& config, std::unordered_map<std::string, at::Tensor>& leaves, const at::Tensor& ids);

// Losses (B * T) of such logits in nats, 0 where the target is -1.
at::Tensor naive_losses(const at::Tensor& logits, const at::Tensor& targets);

// A model with every weight random, so that no path is silent as after init_weights().
Gpt random_model(const GptConfig& config, at::ScalarType dtype, std::uint64_t seed);

// A model that says tokens[i + 1] after tokens[i], whatever came before (greedily; the tokens must differ, the last may be
// anything): what it does is known, for tests of what is made of its answers.
Gpt scripted_model(const GptConfig& config, const std::vector<std::int32_t>& tokens);

// int32 (B, T) below vocab.
at::Tensor random_ids(std::int64_t batch, std::int64_t time, std::int64_t vocab, std::uint64_t seed);

}  // namespace nanochat::testing
