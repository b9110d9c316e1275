#include "optim/ownership.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "model/testing.h"
#include "model/testing_config.h"

namespace nanochat {
namespace {

class Ownership : public ::testing::TestWithParam<int> {};

GptConfig four_layers() {
  GptConfig config = GptConfig::from_depth(4, 90, 16);
  config.n_kv_head = 1;
  return config;
}

void expect_one_owner_of_every_row(const GptConfig& config, int ranks) {
  const Gpt model = testing::random_model(config, at::kFloat, 1);
  const auto divided = divide_parameters(model.parameters(), ranks);
  ASSERT_EQ(divided.size(), model.parameters().size());
  for (std::size_t i = 0; i < divided.size(); ++i) {
    std::int64_t next = 0;
    for (const OwnedRows& rows : divided[i]) {
      EXPECT_EQ(rows.first, next);
      EXPECT_GT(rows.end, rows.first);
      EXPECT_GE(rows.owner, 0);
      EXPECT_LT(rows.owner, ranks);
      next = rows.end;
    }
    EXPECT_EQ(next, model.parameters()[i].value.size(0));
    if (model.parameters()[i].spec.group == OptimizerGroup::kMatrix) {
      EXPECT_EQ(divided[i].size(), 1u) << "the orthogonalisation needs the whole matrix";
    }
    if (model.parameters()[i].spec.role == TensorRole::kScalars) {
      EXPECT_EQ(divided[i].size(), 1u);
      EXPECT_EQ(divided[i].front().owner, 0);
    }
  }
}

TEST_P(Ownership, CoversEveryRowOnce) { expect_one_owner_of_every_row(four_layers(), GetParam()); }
TEST_P(Ownership, CoversEveryRowOfTheNewestArchitectureOnce) {
  expect_one_owner_of_every_row(testing::newest_config(90, 16), GetParam());
}

INSTANTIATE_TEST_SUITE_P(Ranks, Ownership, ::testing::Values(1, 2, 3, 4, 7));

// Elements of the state fall as 1/N, but for what does not divide evenly.
TEST(OwnershipOfState, FallsWithTheNumberOfProcesses) {
  const GptConfig config = GptConfig::from_depth(8, 512, 16);
  const Gpt model(config, at::kFloat);
  constexpr double kUneven = 1.1;
  double whole = 0;
  for (const Parameter& parameter : model.parameters()) {
    whole += static_cast<double>(parameter.value.numel()) * (parameter.spec.group == OptimizerGroup::kMatrix ? 1 : 2);
  }
  for (const int ranks : {1, 2, 4, 8}) {
    std::vector<double> of_rank(static_cast<std::size_t>(ranks));
    const auto divided = divide_parameters(model.parameters(), ranks);
    for (std::size_t i = 0; i < divided.size(); ++i) {
      const Parameter& parameter = model.parameters()[i];
      for (const OwnedRows& rows : divided[i]) {
        of_rank[static_cast<std::size_t>(rows.owner)] += static_cast<double>((rows.end - rows.first) * parameter.value.numel() /
                                                                             parameter.value.size(0)) *
                                                         (parameter.spec.group == OptimizerGroup::kMatrix ? 1 : 2);
      }
    }
    EXPECT_LE(*std::max_element(of_rank.begin(), of_rank.end()), kUneven * whole / ranks) << ranks << " processes";
  }
}

}  // namespace
}  // namespace nanochat
