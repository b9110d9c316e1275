#pragma once
// Coarse work on several threads: tokenizing documents, reading files. Tensor kernels use ops/parallel.h instead.

#include <cstddef>
#include <functional>

namespace nanochat {

// Number of hardware threads that this process may use (its CPU affinity), at least 1.
int available_threads();

// Calls work(i) for i in [0, n) on up to `threads` threads (0: available_threads()) and returns when all are
// done. The order of calls is not specified. Rethrows the first exception after the other threads have stopped.
void for_each_index(std::size_t n, int threads, const std::function<void(std::size_t)>& work);

}  // namespace nanochat
