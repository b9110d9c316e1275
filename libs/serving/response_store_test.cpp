#include "serving/internal/response_store.h"

#include <gtest/gtest.h>

namespace nanochat {
namespace {

TEST(ResponseStore, BelongsToTheKeyThatMadeIt) {
  ResponseStore store(10, 10000);
  store.put("a", {"alice", "body", "[]"});
  ASSERT_NE(store.find("a", "alice"), nullptr);
  EXPECT_EQ(store.find("a", "alice")->body, "body");
  EXPECT_EQ(store.find("a", "bob"), nullptr);
  EXPECT_EQ(store.find("a", ""), nullptr);
  EXPECT_FALSE(store.erase("a", "bob"));
  EXPECT_TRUE(store.erase("a", "alice"));
  EXPECT_FALSE(store.erase("a", "alice"));
  EXPECT_EQ(store.bytes(), 0u);
}

TEST(ResponseStore, DropsTheLeastRecentlyUsed) {
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

TEST(ResponseStore, KeepsItsLimitOfBytes) {
  ResponseStore store(1000, 4000);
  const std::string large(1000, 'x');
  const auto held = [&] {
    store.put("held", {"", large, "[]"});
    return store.find("held", "");
  }();
  for (int i = 0; i < 20; ++i) {
    store.put(std::to_string(i), {"", large, "[]"});
    EXPECT_LE(store.bytes(), 4000u);
  }
  EXPECT_EQ(store.count(), 3u);
  EXPECT_NE(store.find("19", ""), nullptr);
  EXPECT_EQ(store.find("0", ""), nullptr);
  EXPECT_EQ(held->body, large);  // whoever has one keeps it
  store.put("too large", {"", std::string(5000, 'x'), "[]"});
  EXPECT_EQ(store.find("too large", ""), nullptr);
  EXPECT_EQ(store.count(), 3u);
}

TEST(ResponseStore, AnIdHasOneResponse) {
  ResponseStore store(2, 10000);
  store.put("a", {"", "1", "[]"});
  store.put("a", {"", "2", "[]"});
  EXPECT_EQ(store.count(), 1u);
  EXPECT_EQ(store.find("a", "")->body, "2");
  ResponseStore none(0, 10000);
  none.put("a", {"", "1", "[]"});
  EXPECT_EQ(none.count(), 0u);
}

}  // namespace
}  // namespace nanochat
