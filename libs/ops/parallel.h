#pragma once
// Parallel loops on LibTorch's own OpenMP team. A second thread pool would compete with
// it for the cores: while one spins at the end of its loop, the other cannot start.

#include <algorithm>
#include <cstdint>
#include <functional>

namespace nanochat::ops {

// Number of threads that kernels use; set by at::set_num_threads.
int num_threads();

// Calls body(begin, end) on disjoint ranges that cover [0, n), each with at least `grain` items
// except the last. Ranges depend only on n, grain and num_threads(); sums in the order of the ranges
// are therefore equal bit for bit. `body` must not throw. Nested calls run on the caller's thread.
void parallel_for(std::int64_t n, std::int64_t grain, const std::function<void(std::int64_t, std::int64_t)>& body);

// Ends the threads that wait for the caller's next loop. Every thread that computes has its own team. With more
// threads than cores, the runtime puts waiting threads to sleep after a microsecond instead of a millisecond. A thread
// that prepares work for another thread calls this before the other begins. Its own next loop creates a new team.
void release_threads();

}  // namespace nanochat::ops
