#pragma once
// Loops over all threads of LibTorch's own OpenMP team. A second pool beside it would fight it for the cores: while
// one spins at the end of its loop, the other cannot start.

#include <algorithm>
#include <cstdint>
#include <functional>

namespace nanochat::ops {

// Threads that kernels use; set by at::set_num_threads.
int num_threads();

// Calls body(begin, end) on disjoint ranges that cover [0, n), each of at least `grain` items but the last. Ranges
// depend only on n, grain and num_threads(), so that sums taken in order of the ranges repeat bit for bit. `body` must
// not throw. Nested calls run on the caller's thread.
void parallel_for(std::int64_t n, std::int64_t grain, const std::function<void(std::int64_t, std::int64_t)>& body);

// Ends the threads that wait for the caller's next loop. Every thread that computes has a team of its own, and with more
// threads than cores the runtime puts those that wait to sleep after a microsecond instead of a millisecond: a thread that
// prepares work for another one calls this before the other begins. Its own next loop makes a new team.
void release_threads();

}  // namespace nanochat::ops
