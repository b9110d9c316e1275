#include "inference/calculator_tool.h"

#include <algorithm>
#include <array>
#include <string>

#include "inference/calculator.h"
#include "tokenizer/special_tokens.h"

namespace nanochat {
namespace {

class CalculatorTool : public TokenTool {
 public:
  explicit CalculatorTool(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {
    const auto start = tokenizer.special_id(kPythonStart), end = tokenizer.special_id(kPythonEnd);
    const auto output_start = tokenizer.special_id(kOutputStart), output_end = tokenizer.special_id(kOutputEnd);
    if (!start || !end || !output_start || !output_end) return;
    python_start_ = *start;
    python_end_ = *end;
    output_start_ = *output_start;
    output_end_ = *output_end;
  }

  std::vector<std::int32_t> accept(std::int32_t id) override {
    if (id < 0 || python_start_ < 0) return {};
    if (id == python_start_) {
      in_block_ = true;
      expression_.clear();
    } else if (id == python_end_ && in_block_) {
      in_block_ = false;
      return result();
    } else if (in_block_ && expression_.size() <= kMaxExpressionBytes && id < tokenizer_.vocab_size()) {
      expression_ += tokenizer_.token_bytes(id);
    }
    return {};
  }

 private:
  std::vector<std::int32_t> result() const {
    if (expression_.empty()) return {};
    const auto value = calculate(expression_);
    if (!value) return {};
    std::vector<std::int32_t> tokens{output_start_};
    tokenizer_.encode(*value, tokens);
    tokens.push_back(output_end_);
    return tokens;
  }

  const Tokenizer& tokenizer_;
  TokenId python_start_ = -1, python_end_ = -1, output_start_ = -1, output_end_ = -1;
  bool in_block_ = false;
  std::string expression_;  // of the call so far; no more than the calculator reads
};

}  // namespace

bool has_calculator_tokens(const Tokenizer& tokenizer) {
  constexpr std::array kNames = {kPythonStart, kPythonEnd, kOutputStart, kOutputEnd};
  return std::all_of(kNames.begin(), kNames.end(),
                     [&](std::string_view name) { return tokenizer.special_id(name).has_value(); });
}

std::unique_ptr<TokenTool> make_calculator_tool(const Tokenizer& tokenizer) {
  return std::make_unique<CalculatorTool>(tokenizer);
}

}  // namespace nanochat
