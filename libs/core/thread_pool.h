#pragma once
// Coarse work on several threads: tokenizing documents, reading files. Tensor kernels use ops/parallel.h instead.

#include <cstddef>
#include <functional>

namespace nanochat {

// Hardware threads this process may use (its CPU affinity), at least 1.
int available_threads();

// Calls work(i) for i in [0, n) on up to `threads` threads (0: available_threads()); returns when all are done. The
// first exception thrown is rethrown here after the others have stopped. Order of calls is unspecified.
void for_each_index(std::size_t n, int threads, const std::function<void(std::size_t)>& work);

}  // namespace nanochat
