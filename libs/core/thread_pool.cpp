#include "core/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace nanochat {

int available_threads() {
  cpu_set_t set;
  CPU_ZERO(&set);
  // Fails on machines with more processors than a cpu_set_t holds (1,024); the hardware's count serves there.
  if (::sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

void for_each_index(std::size_t n, int threads, const std::function<void(std::size_t)>& work) {
  if (threads <= 0) threads = available_threads();
  const std::size_t workers = std::min(static_cast<std::size_t>(threads), n);

  std::atomic<std::size_t> next{0};
  std::atomic<bool> stop{false};
  std::exception_ptr first_error;
  std::mutex error_mutex;
  const auto loop = [&] {
    while (!stop.load(std::memory_order_relaxed)) {
      const std::size_t i = next.fetch_add(1, std::memory_order_relaxed);
      if (i >= n) return;
      try {
        work(i);
      } catch (...) {
        const std::lock_guard lock(error_mutex);
        if (!first_error) first_error = std::current_exception();
        stop = true;
      }
    }
  };
  {
    std::vector<std::jthread> others;  // joined at the end of this scope; the caller's thread works too
    for (std::size_t i = 1; i < workers; ++i) others.emplace_back(loop);
    loop();
  }
  if (first_error) std::rethrow_exception(first_error);
}

}  // namespace nanochat
