#pragma once
// The calculator as a tool of generation (engine_request.h): between <|python_start|> and <|python_end|> a model writes an
// expression; then <|output_start|> result <|output_end|> are the next tokens of the sequence, whatever the model would
// draw. An expression without a result forces nothing, and the model goes on by itself. Source: the row states of the
// reference's engine.py.

#include <memory>

#include "inference/engine_request.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {

// Whether the tokenizer has the four special tokens that calls and results stand between.
bool has_calculator_tokens(const Tokenizer& tokenizer);

// One per sequence; the tokenizer must outlive it. A tokenizer without those tokens forces nothing.
std::unique_ptr<TokenTool> make_calculator_tool(const Tokenizer& tokenizer);

}  // namespace nanochat
