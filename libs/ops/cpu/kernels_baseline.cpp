#define NANOCHAT_KERNEL_LEVEL baseline
#include "ops/cpu/kernels_impl.inc"
