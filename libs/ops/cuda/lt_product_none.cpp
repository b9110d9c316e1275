// Of a build without CUDA or without the header of cublasLt: ATen's products are used.

#include "ops/cuda/lt_product.h"

namespace nanochat::ops::cuda {

bool lt_is_loaded() { return false; }
bool lt_product(const LtProduct&) { return false; }

}  // namespace nanochat::ops::cuda
