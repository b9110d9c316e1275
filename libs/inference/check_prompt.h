#pragma once
// Checks whether the model can take a prompt. All callers use this.

#include <cstdint>
#include <span>
#include <string>

#include "model/config.h"

namespace nanochat {

// Throws DataError if `id` is outside the vocabulary; the message begins with `what`.
void check_token_id(std::int32_t id, const GptConfig& config, const std::string& what);

// Throws DataError for a prompt that is empty, has an id outside the vocabulary, or leaves no
// room for a token in the context; the message begins with `what` ("the prompt",
// "prompts.txt:3"). prompt_only: nothing will be generated, so the prompt may fill the context.
void check_prompt(std::span<const std::int32_t> prompt, const GptConfig& config, const std::string& what,
                  bool prompt_only = false);

}  // namespace nanochat
