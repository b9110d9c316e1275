#define NANOCHAT_KERNEL_LEVEL avx2
#include "ops/cpu/kernels_impl.inc"
