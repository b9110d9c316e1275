#pragma once
// Where a model was trained, for who reads its checkpoint or report: {"device", "processor", "memory", "system"}.

#include <nlohmann/json_fwd.hpp>

namespace nanochat {

struct Runtime;

nlohmann::json describe_environment(const Runtime& runtime);

}  // namespace nanochat
