#include "ops/cpu/kernels.h"

#include "ops/cpu/attention_kernels.h"

#include <cstdlib>
#include <string_view>

namespace nanochat::ops::cpu {

#define NANOCHAT_DECLARE_LEVEL(level)               \
  namespace level {                                 \
  extern const Kernels<float> kFloatKernels;        \
  extern const Kernels<bf16> kBf16Kernels;          \
  extern const OptimizerKernels kOptimizerKernels;  \
  extern const Exponentials kExponentials;          \
  }
NANOCHAT_DECLARE_LEVEL(baseline)
#ifdef NANOCHAT_X86_KERNELS
NANOCHAT_DECLARE_LEVEL(avx2)
NANOCHAT_DECLARE_LEVEL(avx512)
#endif
#undef NANOCHAT_DECLARE_LEVEL
#ifdef NANOCHAT_X86_KERNELS
namespace avx512bf16 {
extern const AttentionKernels kAttentionKernels;
}
#endif

namespace {

struct Level {
  const char* name;
  const Kernels<float>* float_kernels;
  const Kernels<bf16>* bf16_kernels;
  const OptimizerKernels* optimizer;
  Exponentials exponentials;
};

#define NANOCHAT_LEVEL(level) \
  {#level, &level::kFloatKernels, &level::kBf16Kernels, &level::kOptimizerKernels, level::kExponentials}

Level choose() {
  const char* wish = std::getenv("NANOCHAT_CPU");
  const std::string_view limit = wish != nullptr ? wish : "";
#ifdef NANOCHAT_X86_KERNELS
  const bool avx2_usable = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && limit != "baseline";
  const bool avx512_usable = avx2_usable && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                             limit != "avx2";
  if (avx512_usable) return NANOCHAT_LEVEL(avx512);
  if (avx2_usable) return NANOCHAT_LEVEL(avx2);
#endif
  return NANOCHAT_LEVEL(baseline);
}
#undef NANOCHAT_LEVEL

const Level& level() {
  static const Level chosen = choose();
  return chosen;
}

}  // namespace

template <>
const Kernels<float>& kernels<float>() {
  return *level().float_kernels;
}
template <>
const Kernels<bf16>& kernels<bf16>() {
  return *level().bf16_kernels;
}
const OptimizerKernels& optimizer_kernels() { return *level().optimizer; }
Exponentials exponentials() { return level().exponentials; }
const char* kernel_level() { return level().name; }

const AttentionKernels* attention_kernels() {
#ifdef NANOCHAT_X86_KERNELS
  static const bool usable = level().bf16_kernels == &avx512::kBf16Kernels && __builtin_cpu_supports("avx512bf16");
  if (usable) return &avx512bf16::kAttentionKernels;
#endif
  return nullptr;
}

}  // namespace nanochat::ops::cpu
