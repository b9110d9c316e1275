#include "ops/cpu/kernels.h"

#include "ops/cpu/attention_kernels.h"
#include "ops/cpu/matrix_product.h"
#include "ops/cpu/row_products.h"

#include <cstdlib>
#include <string_view>

#ifdef NANOCHAT_X86_KERNELS
#include <cpuid.h>
#endif

namespace nanochat::ops::cpu {

#define NANOCHAT_DECLARE_LEVEL(level)              \
  namespace level {                                \
  extern const Kernels<float> kFloatKernels;       \
  extern const Kernels<bf16> kBf16Kernels;         \
  extern const OptimizerKernels kOptimizerKernels; \
  extern const Exponentials kExponentials;         \
  extern const RowKernels<float> kFloatRowKernels; \
  extern const RowKernels<bf16> kBf16RowKernels;   \
  extern const PromptAttention kPromptAttention;   \
  extern const Maximum kMaximum;                   \
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
extern const RowKernels<bf16> kRowKernels;
extern const ProductKernels kProductKernels;
}// namespace avx512bf16
#endif

namespace {

struct Level {
  const char* name;
  const Kernels<float>* float_kernels;
  const Kernels<bf16>* bf16_kernels;
  const OptimizerKernels* optimizer;
  Exponentials exponentials;
  const RowKernels<float>* float_rows;
  const RowKernels<bf16>* bf16_rows;
  const PromptAttention* prompts;
  Maximum maximum;
};

#define NANOCHAT_LEVEL(level)                                                                             \
  {                                                                                                       \
    #level, &level::kFloatKernels, &level::kBf16Kernels, &level::kOptimizerKernels, level::kExponentials, \
        &level::kFloatRowKernels, &level::kBf16RowKernels, &level::kPromptAttention, level::kMaximum      \
  }

Level choose() {
  const char* wish = std::getenv("NANOCHAT_CPU");
  [[maybe_unused]] const std::string_view limit = wish != nullptr ? wish : "";
#ifdef NANOCHAT_X86_KERNELS
  const bool avx2_usable = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && limit != "baseline";
  const bool avx512_usable = avx2_usable && has_avx512() && limit != "avx2";
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
const PromptAttention& prompt_attention() { return *level().prompts; }
Maximum maximum() { return level().maximum; }
const char* kernel_level() { return level().name; }

namespace {

#ifdef NANOCHAT_X86_KERNELS
bool has_bf16_products() {
  static const bool usable = level().bf16_kernels == &avx512::kBf16Kernels && __builtin_cpu_supports("avx512bf16");
  return usable;
}
#endif

}  // namespace

bool float_rows_are_fastest() {
#ifdef NANOCHAT_X86_KERNELS
  static const bool fastest = level().float_kernels == &avx512::kFloatKernels && !__builtin_cpu_is("intel");
  return fastest;
#else
  return false;
#endif
}

const AttentionKernels* attention_kernels() {
#ifdef NANOCHAT_X86_KERNELS
  if (has_bf16_products()) return &avx512bf16::kAttentionKernels;
#endif
  return nullptr;
}

const ProductKernels* product_kernels() {
#ifdef NANOCHAT_X86_KERNELS
  if (has_bf16_products()) return &avx512bf16::kProductKernels;
#endif
  return nullptr;
}

bool has_matrix_tiles() {
#ifdef NANOCHAT_X86_KERNELS
  // Leaf 7 of CPUID, EDX: not among the names that clang 16's __builtin_cpu_supports knows.
  constexpr unsigned kAmxBf16 = 1U << 22;
  unsigned a = 0, b = 0, c = 0, d = 0;
  static const bool tiles = __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & kAmxBf16) != 0;
  return tiles;
#else
  return false;
#endif
}

bool has_avx512() {
#ifdef NANOCHAT_X86_KERNELS
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq");
#else
  return false;
#endif
}

template <>
RowKernels<float> row_kernels<float>(std::int64_t /*d*/) {
  return *level().float_rows;
}

template <>
RowKernels<bf16> row_kernels<bf16>([[maybe_unused]] std::int64_t d) {
  RowKernels<bf16> kernels = *level().bf16_rows;
#ifdef NANOCHAT_X86_KERNELS
  if (has_bf16_products()) {
    kernels.linear = avx512bf16::kRowKernels.linear;
    if (d % avx512bf16::kRowKernels.d_multiple == 0) kernels = avx512bf16::kRowKernels;
  }
#endif
  return kernels;
}

}  // namespace nanochat::ops::cpu
