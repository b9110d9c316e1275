#include "model/config.h"

#include <algorithm>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "model/layout.h"

namespace nanochat {

const char* architecture_name(Architecture architecture) {
  return architecture == Architecture::kNanochat2026_07 ? "nanochat-2026-07" : "nanochat-2025-12";
}

std::optional<Architecture> architecture_of_name(std::string_view name) {
  for (const Architecture architecture : {Architecture::kNanochat2025_12, Architecture::kNanochat2026_07}) {
    if (name == architecture_name(architecture)) return architecture;
  }
  return std::nullopt;
}

GptConfig GptConfig::from_depth(std::int64_t depth, std::int64_t vocab_size, std::int64_t sequence_len,
                                Architecture architecture) {
  GptConfig config;
  config.architecture = architecture;
  config.n_layer = depth;
  config.vocab_size = vocab_size;
  config.sequence_len = sequence_len;
  if (config.is_2026()) {
    constexpr std::int64_t kHeadDim = 128;
    config.n_head = config.n_kv_head = (64 * depth + kHeadDim - 1) / kHeadDim;
    config.n_embd = config.n_head * kHeadDim;
    config.intermediate_size = 4 * config.n_embd;
    config.rope_base = 100000.0;
    config.rms_norm_eps = 0x1p-23;
    config.window_pattern = "SSSL";
    config.qk_scale = 1.2;
    return config;
  }
  config.n_embd = 64 * depth;
  const std::int64_t head_dim = depth < 12 ? 64 : 128;
  config.n_head = std::max<std::int64_t>(1, (config.n_embd + head_dim - 1) / head_dim);
  // An odd depth from 13 on has no whole number of heads of 128; the next smaller count that divides the width serves.
  while (config.n_embd % config.n_head != 0 || (config.n_embd / config.n_head) % 2 != 0) --config.n_head;
  config.n_kv_head = config.n_head;
  config.intermediate_size = 4 * config.n_embd;
  return config;
}

std::int64_t GptConfig::parameter_count() const {
  std::int64_t count = 0;
  for_each_tensor(*this, [&](const TensorSpec& tensor) { count += tensor.numel(); });
  return count;
}

double GptConfig::flops_per_token() const {
  std::int64_t matrices = 0, attended = 0;
  for_each_tensor(*this, [&](const TensorSpec& tensor) {
    if (tensor.role == TensorRole::kMatrix || tensor.role == TensorRole::kGate) matrices += tensor.numel();
  });
  for (std::int64_t layer = 0; layer < n_layer; ++layer) {
    attended += std::min(plan_layer(*this, layer).window.value_or(sequence_len), sequence_len);
  }
  return 6.0 * static_cast<double>(matrices) + 12.0 * static_cast<double>(attended * n_embd);
}

void GptConfig::validate() const {
  const auto positive = [](const char* name, std::int64_t value) {
    if (value < 1) throw ConfigError(fmt::format("{} is {}, expected at least 1", name, value));
  };
  positive("sequence_len", sequence_len);
  positive("vocab_size", vocab_size);
  positive("n_layer", n_layer);
  positive("n_head", n_head);
  positive("n_kv_head", n_kv_head);
  positive("n_embd", n_embd);
  positive("intermediate_size", intermediate_size);
  constexpr std::int64_t kLargest = std::int64_t{1} << 24;
  for (const std::int64_t size : {sequence_len, vocab_size, n_layer, n_embd, intermediate_size}) {
    if (size > kLargest) throw ConfigError(fmt::format("a model dimension of {} is beyond the limit of {}", size, kLargest));
  }
  if (n_embd % n_head != 0) {
    throw ConfigError(fmt::format("n_embd {} is not a multiple of n_head {}", n_embd, n_head));
  }
  if (head_dim() % 2 != 0) throw ConfigError(fmt::format("head size {} is odd; rotary embedding needs pairs", head_dim()));
  if (n_head % n_kv_head != 0) {
    throw ConfigError(fmt::format("n_head {} is not a multiple of n_kv_head {}", n_head, n_kv_head));
  }
  if (!(rope_base > 1.0)) throw ConfigError(fmt::format("rope_base is {}, expected a number above 1", rope_base));
  if (!(softcap >= 0.0)) throw ConfigError(fmt::format("softcap is {}, expected 0 (none) or a positive number", softcap));
  if (!(qk_scale > 0.0)) throw ConfigError(fmt::format("qk_scale is {}, expected a positive number", qk_scale));
  if (is_2026()) {
    if (window_pattern.empty() || window_pattern.find_first_not_of("SsLl") != std::string::npos) {
      throw ConfigError(fmt::format("window_pattern is \"{}\", expected letters S (short) and L (long)", window_pattern));
    }
    if (n_embd < kSmearChannels) {
      throw ConfigError(fmt::format("n_embd is {}, expected at least {}, the channels that smear reads", n_embd,
                                    kSmearChannels));
    }
  } else if (!window_pattern.empty() || qk_scale != 1.0) {
    throw ConfigError(fmt::format("window_pattern \"{}\" and qk_scale {} belong to nanochat-2026-07, not to {}", window_pattern,
                                  qk_scale, architecture_name(architecture)));
  }
  if (!(rms_norm_eps >= 0.0)) throw ConfigError(fmt::format("rms_norm_eps is {}, but must not be negative", rms_norm_eps));
}

}  // namespace nanochat
