#include "runtime/versions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nanochat {
namespace {

TEST(Versions, AreThreeNumbers) {
  EXPECT_THAT(program_version(), testing::MatchesRegex("[0-9]+\\.[0-9]+\\.[0-9]+"));
  EXPECT_THAT(libtorch_version(), testing::MatchesRegex("[0-9]+\\.[0-9]+\\.[0-9]+"));
}

}  // namespace
}  // namespace nanochat
