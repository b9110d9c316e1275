#include "inference/calculator_tool.h"

#include <algorithm>
#include <array>

#include "inference/tool_use.h"
#include "tokenizer/special_tokens.h"

namespace nanochat {
namespace {

class CalculatorTool : public TokenTool {
 public:
  explicit CalculatorTool(const Tokenizer& tokenizer) : tools_(tokenizer) {}

  std::vector<std::int32_t> accept(std::int32_t token) override {
    std::vector<std::int32_t> forced;
    tools_.see(token);
    while (const auto next = tools_.forced()) {
      forced.push_back(*next);
      tools_.see(*next);
    }
    return forced;
  }

 private:
  ToolUse tools_;
};

}  // namespace

bool has_calculator_tokens(const Tokenizer& tokenizer) {
  constexpr std::array kNames = {kPythonStart, kPythonEnd, kOutputStart, kOutputEnd};
  return std::all_of(kNames.begin(), kNames.end(), [&](std::string_view name) { return tokenizer.special_id(name).has_value(); });
}

std::unique_ptr<TokenTool> make_calculator_tool(const Tokenizer& tokenizer) { return std::make_unique<CalculatorTool>(tokenizer); }

}  // namespace nanochat
