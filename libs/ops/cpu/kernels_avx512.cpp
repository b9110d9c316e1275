#define NANOCHAT_KERNEL_LEVEL avx512
#include "ops/cpu/kernels_impl.inc"
