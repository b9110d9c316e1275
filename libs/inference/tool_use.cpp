#include "inference/tool_use.h"

#include "inference/calculator.h"
#include "tokenizer/special_tokens.h"

namespace nanochat {

ToolUse::ToolUse(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {
  const auto start = tokenizer.special_id(kPythonStart), end = tokenizer.special_id(kPythonEnd);
  const auto output_start = tokenizer.special_id(kOutputStart), output_end = tokenizer.special_id(kOutputEnd);
  if (!start || !end || !output_start || !output_end) return;
  python_start_ = *start;
  python_end_ = *end;
  output_start_ = *output_start;
  output_end_ = *output_end;
}

void ToolUse::see(TokenId id) {
  if (!pending_.empty() && pending_.front() == id) pending_.pop_front();
  if (id < 0 || python_start_ < 0) return;
  if (id == python_start_) {
    in_block_ = true;
    expression_.clear();
  } else if (id == python_end_ && in_block_) {
    in_block_ = false;
    run();
  } else if (in_block_ && expression_.size() <= kMaxExpressionBytes && id < tokenizer_->vocab_size()) {
    expression_ += tokenizer_->token_bytes(id);
  }
}

void ToolUse::run() {
  if (expression_.empty()) return;
  const auto result = calculate(expression_);
  expression_.clear();
  if (!result) return;
  pending_.push_back(output_start_);
  for (const TokenId id : tokenizer_->encode(*result)) pending_.push_back(id);
  pending_.push_back(output_end_);
}

}  // namespace nanochat
