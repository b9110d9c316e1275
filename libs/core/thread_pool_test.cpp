#include "core/thread_pool.h"

#include <atomic>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace nanochat {
namespace {

TEST(ThreadPoolTest, CallsEveryIndexOnce) {
  for (const int threads : {0, 1, 3, 16}) {
    std::vector<std::atomic<int>> calls(1000);
    for_each_index(calls.size(), threads, [&](std::size_t i) { ++calls[i]; });
    for (const std::atomic<int>& count : calls) ASSERT_EQ(count.load(), 1);
  }
}

TEST(ThreadPoolTest, UsesAtMostTheThreadsAskedFor) {
  std::mutex mutex;
  std::set<std::thread::id> ids;
  for_each_index(200, 2, [&](std::size_t) {
    const std::lock_guard lock(mutex);
    ids.insert(std::this_thread::get_id());
  });
  EXPECT_LE(ids.size(), 2u);
}

TEST(ThreadPoolTest, WithoutIndicesNothingIsCalled) {
  for_each_index(0, 4, [](std::size_t) { FAIL() << "there is no index"; });
  EXPECT_GE(available_threads(), 1);
}

TEST(ThreadPoolTest, RethrowsAndStops) {
  std::atomic<int> calls{0};
  EXPECT_THROW(for_each_index(1000000, 2,
                              [&](std::size_t i) {
                                ++calls;
                                if (i == 10) throw std::runtime_error("ten");
                              }),
               std::runtime_error);
  EXPECT_LT(calls.load(), 1000000);
}

}  // namespace
}  // namespace nanochat
