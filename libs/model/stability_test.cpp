#include "model/stability.h"

#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/testing.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using testing::random_ids;
using testing::random_model;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

TEST(DescribeNonFinite, CountsWhatItFinds) {
  at::Tensor tensor = at::zeros({3, 4});
  EXPECT_FALSE(describe_non_finite("x", tensor));
  tensor.select(0, 0).select(0, 1).fill_(kNan);
  EXPECT_EQ(describe_non_finite("x", tensor), "x has 1 NaN of 12 values");
  tensor.select(0, 2).select(0, 1).fill_(-kInf);
  EXPECT_EQ(describe_non_finite("x", tensor), "x has 1 NaN and 1 Inf of 12 values");
  EXPECT_EQ(describe_non_finite("y", at::full({2}, kInf)), "y has 2 Inf of 2 values");
}

class FindNonFinite : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  GptConfig config_ = GptConfig::from_depth(3, 90, 16);
  Gpt model_ = random_model(config_, GetParam(), 1);
  at::Tensor ids_ = random_ids(2, 16, 90, 2);
  at::Tensor scale_ = at::ones({2, 16});
};

TEST_P(FindNonFinite, FindsNothingInAHealthyModel) {
  EXPECT_FALSE(find_non_finite(model_, ids_, ids_, scale_));
  EXPECT_EQ(model_.parameters()[2].grad.abs().max().item<double>(), 0.0);
}

TEST_P(FindNonFinite, NamesAWeight) {
  model_.parameters()[8].value.select(0, 0).select(0, 0).fill_(kNan);
  const auto found = find_non_finite(model_, ids_, ids_, scale_);
  ASSERT_TRUE(found);
  EXPECT_THAT(*found, HasSubstr(model_.parameters()[8].name));
}

TEST_P(FindNonFinite, NamesTheLayerWhereActivationsOverflow) {
  // Finite weights whose product is not: the MLP of layer 1 overflows when squared.
  for (Parameter& parameter : model_.parameters()) {
    if (parameter.name == "model.layers.1.mlp.fc1.weight") parameter.value.fill_(1e30);
  }
  model_.refresh_compute();
  const auto found = find_non_finite(model_, ids_, ids_, scale_);
  ASSERT_TRUE(found);
  EXPECT_THAT(*found, HasSubstr("layer 1: mlp"));
}

TEST_P(FindNonFinite, NamesAGradient) {
  scale_.select(0, 0).select(0, 3).fill_(kInf);  // the losses stay finite, their gradients do not
  const auto found = find_non_finite(model_, ids_, ids_, scale_);
  ASSERT_TRUE(found);
  EXPECT_THAT(*found, HasSubstr("gradient of"));
}

INSTANTIATE_TEST_SUITE_P(Dtypes, FindNonFinite, ::testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& param) { return std::string(at::toString(param.param)); });

}  // namespace
}  // namespace nanochat
