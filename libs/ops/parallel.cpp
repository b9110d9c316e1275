#include "ops/parallel.h"

#include <ATen/Parallel.h>

// The entry points of the GNU OpenMP runtime, which g++ and (through compatibility symbols) clang's runtime both offer.
// Calling them, instead of writing pragmas, keeps this library on the one runtime that LibTorch has loaded, whichever
// compiler builds it.
extern "C" {
void GOMP_parallel(void (*fn)(void*), void* data, unsigned num_threads, unsigned flags);
int omp_get_thread_num(void);
int omp_in_parallel(void);
int omp_pause_resource_all(int kind);
}

namespace nanochat::ops {
namespace {

struct Job {
  const std::function<void(std::int64_t, std::int64_t)>* body;
  std::int64_t n;
  std::int64_t chunk;
};

void run_share(void* data) {
  const Job& job = *static_cast<const Job*>(data);
  const std::int64_t begin = omp_get_thread_num() * job.chunk;
  const std::int64_t end = std::min(job.n, begin + job.chunk);
  if (begin < end) (*job.body)(begin, end);
}

}  // namespace

int num_threads() { return at::get_num_threads(); }

void parallel_for(std::int64_t n, std::int64_t grain, const std::function<void(std::int64_t, std::int64_t)>& body) {
  if (n <= 0) return;
  grain = std::max<std::int64_t>(grain, 1);
  const std::int64_t threads = std::min<std::int64_t>(num_threads(), (n + grain - 1) / grain);
  if (threads <= 1 || omp_in_parallel() != 0) {
    body(0, n);
    return;
  }
  Job job{&body, n, (n + threads - 1) / threads};
  GOMP_parallel(&run_share, &job, static_cast<unsigned>(threads), 0);
}

void release_threads() {
  constexpr int kSoft = 1;  // omp_pause_soft
  omp_pause_resource_all(kSoft);
}

}  // namespace nanochat::ops
