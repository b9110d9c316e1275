#pragma once
// The calculator of tool_use.h as the engine takes it: EngineOptions::make_tool.

#include <memory>

#include "inference/engine_request.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {

// Whether the tokenizer has the four special tokens that calls and results stand between.
bool has_calculator_tokens(const Tokenizer& tokenizer);

// The tokenizer must outlive it.
std::unique_ptr<TokenTool> make_calculator_tool(const Tokenizer& tokenizer);

}  // namespace nanochat
