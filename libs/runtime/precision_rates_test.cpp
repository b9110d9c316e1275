#include "runtime/precision_rates.h"

#include <gtest/gtest.h>

#include "core/elapsed.h"
#include "ops/cast.h"

namespace nanochat {
namespace {

// Wide enough for a throttled single core and for a large server; wrong units would fall outside.
constexpr double kFewestFlops = 1e7, kMostFlops = 1e15;
constexpr double kFewestWeights = 1e7, kMostWeights = 1e13;
// Of a measurement, which every command that computes may have to wait for: on two cores it takes a quarter.
constexpr double kMostSeconds = 4.0;

TEST(MeasureTrainingProducts, LiesInThePlausibleRangeAndIsShort) {
  const auto before = SteadyClock::now();
  const PrecisionRates rates = measure_training_products();
  EXPECT_LT(seconds_since(before), kMostSeconds);
  for (const double rate : {rates.float32, rates.bfloat16}) {
    EXPECT_GT(rate, kFewestFlops);
    EXPECT_LT(rate, kMostFlops);
  }
}

TEST(MeasureTrainingProducts, EmulationIsNotFaster) {
  if (ops::cpu_has_fast_bf16()) GTEST_SKIP() << "this processor multiplies bfloat16 numbers";
  const PrecisionRates rates = measure_training_products();
  EXPECT_LT(rates.bfloat16, rates.float32);
}

TEST(MeasureDecodingProducts, LiesInThePlausibleRangeAndIsShort) {
  const auto before = SteadyClock::now();
  const PrecisionRates rates = measure_decoding_products();
  EXPECT_LT(seconds_since(before), kMostSeconds);
  for (const double rate : {rates.float32, rates.bfloat16}) {
    EXPECT_GT(rate, kFewestWeights);
    EXPECT_LT(rate, kMostWeights);
  }
}

}  // namespace
}  // namespace nanochat
