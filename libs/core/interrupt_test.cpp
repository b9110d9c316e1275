#include "core/interrupt.h"

#include <csignal>

#include <gtest/gtest.h>

namespace nanochat {
namespace {

class InterruptTest : public ::testing::TestWithParam<int> {};

TEST_P(InterruptTest, FirstSignalAsksToStop) {
  install_interrupt_handlers();
  reset_interrupt_for_testing();
  EXPECT_FALSE(interrupt_requested());
  std::raise(GetParam());
  EXPECT_TRUE(interrupt_requested());
  reset_interrupt_for_testing();
  EXPECT_FALSE(interrupt_requested());
}

TEST_P(InterruptTest, SecondSignalEndsTheProcess) {
  EXPECT_EXIT(
      {
        install_interrupt_handlers();
        std::raise(GetParam());
        std::raise(GetParam());
      },
      ::testing::ExitedWithCode(130), "");
}

INSTANTIATE_TEST_SUITE_P(Signals, InterruptTest, ::testing::Values(SIGINT, SIGTERM));

}  // namespace
}  // namespace nanochat
