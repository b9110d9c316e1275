#include "evaluation/example_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/testing.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

const nlohmann::json kSettings = {{"dtype", "float32"}, {"max_per_task", 10}};

TEST(ExampleStore, GoesOnWhereAKilledOneStopped) {
  const testing::TemporaryDirectory folder;
  const auto file = folder / "examples.jsonl";
  {
    ExampleStore store(folder.path(), kSettings, false);
    store.add("core/a", 3, {{"correct", true}, {"sample", "long"}});
    store.add("core/a", 5, {{"correct", false}});
    store.add("core/b", 3, {{"correct", true}});
    EXPECT_FALSE(store.of("core/a").at(3).contains("sample"));
  }
  EXPECT_THAT(read_file(file), HasSubstr("\"sample\":\"long\""));
  testing::write_text(file, read_file(file) + "{\"task\":\"core/b\",\"exam");  // killed in the middle of a line
  {
    ExampleStore store(folder.path(), kSettings, true);
    EXPECT_EQ(store.of("core/a").size(), 2U);
    EXPECT_TRUE(store.of("core/a").at(3).at("correct").get<bool>());
    EXPECT_EQ(store.of("core/b").size(), 1U);
    EXPECT_TRUE(store.of("core/c").empty());
    store.add("core/b", 4, {{"correct", true}});
  }
  EXPECT_EQ(ExampleStore(folder.path(), kSettings, true).of("core/b").size(), 2U);
  EXPECT_TRUE(ExampleStore(folder.path(), kSettings, false).of("core/b").empty()) << "begins anew";
}

TEST(ExampleStore, PutsRanksTogether) {
  const testing::TemporaryDirectory folder;
  for (int rank = 0; rank < 2; ++rank) {
    ExampleStore store(folder.path(), kSettings, false, rank, 2);
    store.add("t", rank, {{"correct", rank == 1}});
  }
  const ExampleStore all(folder.path(), kSettings, true);
  EXPECT_EQ(all.of("t").size(), 2U);
  EXPECT_TRUE(all.of("t").at(1).at("correct").get<bool>());
}

TEST(ExampleStore, RefusesOtherSettingsAndOtherFiles) {
  const testing::TemporaryDirectory folder;
  { const ExampleStore store(folder.path(), kSettings, false); }
  nlohmann::json other = kSettings;
  other["dtype"] = "bfloat16";
  EXPECT_THAT([&] { ExampleStore(folder.path(), other, true); },
              ThrowsMessage<ConfigError>(HasSubstr("dtype was \"float32\" and is \"bfloat16\"")));
  testing::write_text(folder / "examples.jsonl", "{\"a\":1}\n");
  EXPECT_THAT([&] { ExampleStore(folder.path(), kSettings, true); }, ThrowsMessage<DataError>(HasSubstr("examples.jsonl:1")));
}

TEST(ExampleStore, KeepsToMemoryWithoutAFolder) {
  ExampleStore store;
  store.add("t", 1, {{"correct", true}});
  EXPECT_EQ(store.of("t").size(), 1U);
}

}  // namespace
}  // namespace nanochat
