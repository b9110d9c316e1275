#include "serving/internal/owned_store.h"

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "serving/internal/response_store.h"

namespace nanochat {
namespace {

using namespace std::chrono_literals;

TEST(OwnedStore, AValueBelongsToTheKeyThatMadeIt) {
  ResponseStore store(10, 10000);
  store.put("a", {"alice", "body", "[]"});
  ASSERT_NE(store.find("a", "alice"), nullptr);
  EXPECT_EQ(store.find("a", "alice")->body, "body");
  EXPECT_EQ(store.find("a", "bob"), nullptr);
  EXPECT_EQ(store.find("a", ""), nullptr);
  EXPECT_FALSE(store.erase("a", "bob"));
  store.put("a", {"bob", "another", "[]"});  // the same id, of another key
  EXPECT_EQ(store.find("a", "alice")->body, "body");
  EXPECT_EQ(store.find("a", "bob")->body, "another");
  EXPECT_TRUE(store.erase("a", "alice"));
  EXPECT_FALSE(store.erase("a", "alice"));
  EXPECT_EQ(store.find("a", "bob")->body, "another");
  EXPECT_TRUE(store.erase("a", "bob"));
  EXPECT_EQ(store.bytes(), 0u);
}

TEST(OwnedStore, DropsTheLeastRecentlyUsed) {
  ResponseStore store(2, 10000);
  store.put("a", {"", "1", "[]"});
  store.put("b", {"", "2", "[]"});
  EXPECT_NE(store.find("a", ""), nullptr);
  store.put("c", {"", "3", "[]"});
  EXPECT_NE(store.find("a", ""), nullptr);
  EXPECT_EQ(store.find("b", ""), nullptr);
  EXPECT_NE(store.find("c", ""), nullptr);
  EXPECT_EQ(store.count(), 2u);
}

TEST(OwnedStore, CanBeEmptied) {
  ResponseStore store(10, 10000);
  store.put("a", {"", "1", "[]"});
  store.put("b", {"alice", "2", "[]"});
  store.clear();
  EXPECT_EQ(store.count(), 0u);
  EXPECT_EQ(store.bytes(), 0u);
  EXPECT_EQ(store.find("b", "alice"), nullptr);
  store.put("a", {"", "3", "[]"});
  EXPECT_EQ(store.find("a", "")->body, "3");
}

TEST(OwnedStore, KeepsItsLimitOfBytes) {
  ResponseStore store(1000, 4000);
  const std::string large(1000, 'x');
  const auto held = [&] {
    store.put("held", {"", large, "[]"});
    return store.find("held", "");
  }();
  for (int i = 0; i < 20; ++i) {
    EXPECT_TRUE(store.put(std::to_string(i), {"", large, "[]"}));
    EXPECT_LE(store.bytes(), 4000u);
  }
  EXPECT_EQ(store.count(), 3u);
  EXPECT_NE(store.find("19", ""), nullptr);
  EXPECT_EQ(store.find("0", ""), nullptr);
  EXPECT_EQ(held->body, large);  // whoever has one keeps it
  EXPECT_FALSE(store.put("too large", {"", std::string(5000, 'x'), "[]"}));
  EXPECT_EQ(store.find("too large", ""), nullptr);
  EXPECT_EQ(store.count(), 3u);
}

TEST(OwnedStore, AnIdHasOneValue) {
  ResponseStore store(2, 10000);
  store.put("a", {"", "1", "[]"});
  store.put("a", {"", "2", "[]"});
  EXPECT_EQ(store.count(), 1u);
  EXPECT_EQ(store.find("a", "")->body, "2");
  EXPECT_FALSE(store.put("a", {"", std::string(20000, 'x'), "[]"}));
  EXPECT_EQ(store.find("a", ""), nullptr);  // and not the value before
  ResponseStore none(0, 10000);
  none.put("a", {"", "1", "[]"});
  EXPECT_EQ(none.count(), 0u);
}

TEST(OwnedStore, AValueExpiresWhenItIsNotUsed) {
  ResponseStore store(10, 10000, 60s);
  const auto now = ResponseStore::Clock::now();
  store.put("a", {"", "1", "[]"}, now);
  store.put("b", {"", "2", "[]"}, now);
  EXPECT_NE(store.find("a", "", now + 59s), nullptr);
  EXPECT_EQ(store.find("b", "", now + 60s), nullptr);
  EXPECT_NE(store.find("a", "", now + 118s), nullptr);
  EXPECT_FALSE(store.erase("a", "", now + 178s));
  EXPECT_EQ(store.count(now + 178s), 0u);
  EXPECT_EQ(store.bytes(now + 178s), 0u);
}

// A value whose end can be seen, and whose end may use the store.
struct Watched {
  std::string owner;
  std::function<void()> ended;
  std::size_t bytes() const { return 100; }
  Watched(std::string of, std::function<void()> at_end) : owner(std::move(of)), ended(std::move(at_end)) {}
  Watched(Watched&& other) noexcept : owner(std::move(other.owner)), ended(std::exchange(other.ended, nullptr)) {}
  Watched& operator=(Watched&&) = delete;
  ~Watched() {
    if (ended) ended();
  }
};

TEST(OwnedStore, EndsAValueThatIsReplacedDroppedExpiredOrErased) {
  int ended = 0;
  OwnedStore<Watched> store(2, 10000, 60s);
  const auto now = OwnedStore<Watched>::Clock::now();
  const auto put = [&](const char* id, auto time) {
    store.put(id, Watched("", [&, time] { ended += 1 + static_cast<int>(0 * store.count(time)); }), time);
  };
  put("a", now);
  put("a", now);
  EXPECT_EQ(ended, 1);
  put("b", now);
  put("c", now + 1s);  // drops a
  EXPECT_EQ(ended, 2);
  store.erase("b", "", now + 1s);
  EXPECT_EQ(ended, 3);
  EXPECT_EQ(store.count(now + 61s), 0u);
  EXPECT_EQ(ended, 4);
}

TEST(OwnedStore, WorksFromManyThreads) {
  constexpr int kThreads = 8, kRounds = 3000;
  ResponseStore store(50, 20000);
  std::atomic<int> wrong{0}, found_ones{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      const std::string owner = std::to_string(t % 3);
      for (int i = 0; i < kRounds; ++i) {
        const std::string id = std::to_string((i * 7 + t) % 40);
        store.put(id, {owner, owner + ":" + id, "[]"});
        if (const auto found = store.find(id, owner)) {
          ++found_ones;
          if (found->owner != owner || found->body != owner + ":" + id) ++wrong;
        }
        if (i % 5 == 0) store.erase(id, owner);
        if (store.count() > 50 || store.bytes() > 20000) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(found_ones, kThreads * kRounds / 2);
  for (int owner = 0; owner < 3; ++owner) {
    for (int id = 0; id < 40; ++id) store.erase(std::to_string(id), std::to_string(owner));
  }
  EXPECT_EQ(store.count(), 0u);
  EXPECT_EQ(store.bytes(), 0u);
}

}  // namespace
}  // namespace nanochat
