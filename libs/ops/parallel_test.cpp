#include "ops/parallel.h"

#include <ATen/Parallel.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <mutex>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace nanochat::ops {
namespace {

std::set<std::pair<std::int64_t, std::int64_t>> ranges_of(std::int64_t n, std::int64_t grain) {
  std::set<std::pair<std::int64_t, std::int64_t>> ranges;
  std::mutex mutex;
  parallel_for(n, grain, [&](std::int64_t begin, std::int64_t end) {
    const std::lock_guard lock(mutex);
    ranges.emplace(begin, end);
  });
  return ranges;
}

std::int64_t threads_of_this_process() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/task"), std::filesystem::directory_iterator());
}

// The first test here: nothing has made a team before it.
TEST(ReleaseThreads, EndsTheTeamAndTheNextLoopMakesAnother) {
  at::set_num_threads(3);
  const std::int64_t alone = threads_of_this_process();
  ASSERT_EQ(ranges_of(3, 1).size(), 3U);
  ASSERT_EQ(threads_of_this_process(), alone + 2);
  release_threads();
  // They end a little later than the call.
  for (int i = 0; i < 5000 && threads_of_this_process() > alone; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(threads_of_this_process(), alone);
  EXPECT_EQ(ranges_of(3, 1).size(), 3U);
  EXPECT_EQ(threads_of_this_process(), alone + 2);
}

TEST(ParallelFor, CoversEveryItemOnce) {
  at::set_num_threads(4);
  EXPECT_EQ(num_threads(), 4);
  for (const std::int64_t n : {1, 2, 3, 5, 17, 1000}) {
    for (const std::int64_t grain : {0, 1, 4, 999, 5000}) {
      std::vector<std::atomic<int>> visits(static_cast<std::size_t>(n));
      parallel_for(n, grain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) ++visits[static_cast<std::size_t>(i)];
      });
      for (const auto& count : visits) EXPECT_EQ(count.load(), 1);
    }
  }
}

TEST(ParallelFor, RangesDependOnSizesAlone) {
  at::set_num_threads(4);
  EXPECT_EQ(ranges_of(1000, 1), ranges_of(1000, 1));
  EXPECT_EQ(ranges_of(1000, 1).size(), 4U);
  EXPECT_EQ(ranges_of(10, 100).size(), 1U);
  EXPECT_TRUE(ranges_of(0, 1).empty());
}

TEST(ParallelFor, NestedLoopsRunWhereTheyAre) {
  at::set_num_threads(4);
  std::atomic<int> inner{0};
  parallel_for(4, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      parallel_for(10, 1, [&](std::int64_t first, std::int64_t last) { inner += static_cast<int>(last - first); });
    }
  });
  EXPECT_EQ(inner.load(), 40);
}

}  // namespace
}  // namespace nanochat::ops
