#define NANOCHAT_KERNEL_LEVEL avx2
#define NANOCHAT_VECTOR_BYTES 32
#include "ops/cpu/kernels_impl.inc"
#include "ops/cpu/row_products_impl.inc"
