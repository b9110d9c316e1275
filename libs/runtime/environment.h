#pragma once
// The machine of a training, for checkpoints and reports: {"device", "processor", "memory", "system"}.

#include <nlohmann/json_fwd.hpp>

namespace nanochat {

struct Runtime;

nlohmann::json describe_environment(const Runtime& runtime);

}  // namespace nanochat
