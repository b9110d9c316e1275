#define NANOCHAT_KERNEL_LEVEL baseline
#define NANOCHAT_VECTOR_BYTES 16
#include "ops/cpu/kernels_impl.inc"
#include "ops/cpu/row_products_impl.inc"
