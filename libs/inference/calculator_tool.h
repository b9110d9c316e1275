#pragma once
// The calculator as a tool of generation (engine_request.h). A model writes an expression
// between <|python_start|> and <|python_end|>. Then <|output_start|> result <|output_end|>
// are forced as the next tokens of the sequence. An expression without a result forces
// nothing, and the model continues. Source: the row states of the reference's engine.py.

#include <memory>

#include "inference/engine_request.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {

// True if the tokenizer has the four special tokens around calls and results.
bool has_calculator_tokens(const Tokenizer& tokenizer);

// One per sequence; the tokenizer must outlive it. With a tokenizer without those tokens, it forces nothing.
std::unique_ptr<TokenTool> make_calculator_tool(const Tokenizer& tokenizer);

}  // namespace nanochat
