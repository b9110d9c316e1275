#pragma once
// The one place that says which prompts a model can take.

#include <cstdint>
#include <span>
#include <string>

#include "model/config.h"

namespace nanochat {

// Throws DataError when `id` is outside the vocabulary; the message begins with `what`.
void check_token_id(std::int32_t id, const GptConfig& config, const std::string& what);

// Throws DataError, whose message begins with `what` ("the prompt", "prompts.txt:3"), for a prompt that is empty, holds an
// id outside the vocabulary, or leaves no room for a token in the context. prompt_only: nothing is to be generated, so
// the prompt may fill the context.
void check_prompt(std::span<const std::int32_t> prompt, const GptConfig& config, const std::string& what,
                  bool prompt_only = false);

}  // namespace nanochat
