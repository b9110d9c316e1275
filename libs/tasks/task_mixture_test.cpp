#include "tasks/task_mixture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "core/errors.h"
#include "tasks/example_list.h"

namespace nanochat {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

// Rows named "a0", "a1", ...
std::shared_ptr<const Task> rows(const std::string& name, int count) {
  std::vector<TaskExample> examples(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) examples[static_cast<std::size_t>(i)].group = name + std::to_string(i);
  return std::make_shared<ExampleList>(name, TaskKind::kConversation, std::move(examples));
}

std::vector<std::string> order(const Task& task) {
  std::vector<std::string> names;
  for (std::int64_t i = 0; i < task.size(); ++i) names.push_back(task.example(i).group);
  return names;
}

std::map<std::string, int> counts(const Task& task) {
  std::map<std::string, int> all;
  for (const std::string& name : order(task)) ++all[name];
  return all;
}

// random.Random(42).shuffle and random.Random(43).shuffle of CPython.
TEST(Mixture, HasTheOrderOfTheReference) {
  const TaskMixture mixture({{rows("a", 3)}, {rows("b", 4)}});
  EXPECT_THAT(order(mixture), ElementsAre("a1", "b0", "b1", "a2", "b3", "a0", "b2"));
  EXPECT_THAT(order(*mixture.epoch(1)), ElementsAre("b2", "b3", "b1", "b0", "a1", "a2", "a0"));
  EXPECT_EQ(order(*mixture.epoch(1)->epoch(0)), order(mixture));
  EXPECT_EQ(mixture.name(), "mixture");
  EXPECT_EQ(mixture.kind(), TaskKind::kConversation);
  EXPECT_EQ(mixture.source(4), std::make_pair(std::size_t{1}, std::int64_t{3}));
  EXPECT_NE(order(TaskMixture({{rows("a", 30)}}, 1)), order(TaskMixture({{rows("a", 30)}}, 2)));
}

TEST(Mixture, RepeatsWholeAndInParts) {
  const TaskMixture mixture({{rows("a", 2), 2.5}, {rows("b", 3), 1.0}, {rows("c", 5), 0.0}});
  EXPECT_EQ(mixture.size(), 8);
  EXPECT_THAT(counts(mixture), ElementsAre(Pair("a0", 3), Pair("a1", 2), Pair("b0", 1), Pair("b1", 1), Pair("b2", 1)));
  EXPECT_THAT(counts(*mixture.epoch(1)),
              ElementsAre(Pair("a0", 2), Pair("a1", 3), Pair("b0", 1), Pair("b1", 1), Pair("b2", 1)));
  const TaskMixture part({{rows("a", 10), 0.3}});
  std::set<std::string> seen;
  for (int epoch = 0; epoch < 4; ++epoch) {
    EXPECT_EQ(part.epoch(epoch)->size(), 3);
    for (const std::string& name : order(*part.epoch(epoch))) seen.insert(name);
  }
  EXPECT_EQ(seen.size(), 10U) << "every row has its turn";
}

TEST(Mixture, CapsAndWeighs) {
  const TaskMixture capped({{rows("a", 100), 1.0, 0.0, 2}, {rows("b", 1), 2.0}});
  EXPECT_THAT(counts(capped), ElementsAre(Pair("a0", 1), Pair("a1", 1), Pair("b0", 2)));
  const TaskMixture weighed({{rows("a", 10), 1.0, 3.0}, {rows("b", 90), 1.0, 1.0}});
  EXPECT_EQ(weighed.size(), 100);
  EXPECT_THAT(weighed.rows_of_entries(), ElementsAre(75, 25));
  const TaskMixture thirds({{rows("a", 5), 1.0, 1.0}, {rows("b", 5), 1.0, 1.0}, {rows("c", 5), 1.0, 1.0}}, 42, 100);
  EXPECT_EQ(thirds.size(), 100);
  EXPECT_THAT(thirds.rows_of_entries(), ElementsAre(33, 34, 33));
}

TEST(Mixture, RefusesWhatCannotBe) {
  EXPECT_THROW(TaskMixture({}), ConfigError);
  EXPECT_THROW(TaskMixture({{rows("a", 3), 0.0}}), ConfigError);
  EXPECT_THROW(TaskMixture({{rows("a", 3), -1.0}}), ConfigError);
  EXPECT_THROW(TaskMixture({{rows("a", 3), 1.0, -1.0}}), ConfigError);
  EXPECT_THROW(TaskMixture({{rows("a", 3), 1.0, 0.0, -1}}), ConfigError);
  EXPECT_THROW(TaskMixture({{rows("a", 3), 1.0, 1.0}, {rows("b", 3)}}), ConfigError);
  EXPECT_THROW(TaskMixture({{rows("a", 3)}}, 42, 5), ConfigError);
  EXPECT_THROW(TaskMixture({{rows("a", 3)}}).example(3), std::out_of_range);
}

TEST(Slice, TakesRowsFromStartToStop) {
  EXPECT_THAT(order(*slice(rows("a", 10), 2, 5)), ElementsAre("a2", "a3", "a4"));
  EXPECT_THAT(order(*slice(rows("a", 10), 1, 0, 4)), ElementsAre("a1", "a5", "a9"));
  EXPECT_EQ(slice(rows("a", 10), 0, 50)->size(), 10);
  EXPECT_EQ(slice(rows("a", 10), 0, 3)->name(), "a");
  EXPECT_THROW(slice(rows("a", 10), 10, 0), ConfigError);
  EXPECT_THROW(slice(rows("a", 10), 5, 5), ConfigError);
  EXPECT_THROW(slice(rows("a", 10), -1, 5), ConfigError);
  EXPECT_THROW(slice(rows("a", 10), 0, 0, 0), ConfigError);
}

TEST(Shuffled, TakesTheOrderOfTheReferencesSets) {
  // numpy.random.default_rng(42).permutation(5), and with seed 0 of 12.
  EXPECT_THAT(order(*shuffled(rows("a", 5))), ElementsAre("a4", "a2", "a3", "a1", "a0"));
  EXPECT_THAT(order(*slice(shuffled(rows("a", 12), 0), 0, 3)), ElementsAre("a9", "a2", "a7"));
  EXPECT_EQ(shuffled(rows("a", 3))->name(), "a");
}

}  // namespace
}  // namespace nanochat
