#include "inference/check_prompt.h"

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"

namespace nanochat {

void check_token_id(std::int32_t id, const GptConfig& config, const std::string& what) {
  if (id >= 0 && id < config.vocab_size) return;
  throw DataError(fmt::format("{}: token id {} is outside the model's vocabulary of {}", what, id, config.vocab_size));
}

void check_prompt(std::span<const std::int32_t> prompt, const GptConfig& config, const std::string& what, bool prompt_only) {
  const auto length = static_cast<std::int64_t>(prompt.size());
  const std::int64_t most = prompt_only ? config.sequence_len : config.sequence_len - 1;
  if (length == 0) throw DataError(what + " is empty; expected at least one token");
  if (length > most) {
    throw DataError(fmt::format("{} has {} tokens; the model's context of {} leaves room for at most {}", what, length,
                                config.sequence_len, most));
  }
  for (const std::int32_t id : prompt) check_token_id(id, config, what);
}

}  // namespace nanochat
