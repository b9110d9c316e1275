#include "serving/calculator_tool.h"

namespace nanochat {

std::vector<std::int32_t> CalculatorTool::accept(std::int32_t token) {
  tools_.see(token);
  if (announced_ > 0) {
    --announced_;
    return {};
  }
  std::vector<std::int32_t> forced;
  for (ToolUse ahead = tools_; ahead.forced(); ahead.see(forced.back())) forced.push_back(*ahead.forced());
  announced_ = forced.size();
  return forced;
}

}  // namespace nanochat
