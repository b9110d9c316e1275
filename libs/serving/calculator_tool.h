#pragma once
// The calculator (inference/tool_use.h) as the engine's TokenTool, for requests with nanochat_tools.

#include "inference/engine_request.h"
#include "inference/tool_use.h"

namespace nanochat {

// The tokenizer must outlive it.
class CalculatorTool : public TokenTool {
 public:
  explicit CalculatorTool(const Tokenizer& tokenizer) : tools_(tokenizer) {}
  std::vector<std::int32_t> accept(std::int32_t token) override;

 private:
  ToolUse tools_;
  std::size_t announced_ = 0;  // tokens of the last answer that are still to come back
};

}  // namespace nanochat
