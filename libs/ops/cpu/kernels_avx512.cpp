#define NANOCHAT_KERNEL_LEVEL avx512
#define NANOCHAT_VECTOR_BYTES 64
#include "ops/cpu/kernels_impl.inc"
#include "ops/cpu/row_products_impl.inc"
