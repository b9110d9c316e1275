#include "core/interrupt.h"

#include <csignal>
#include <cstdlib>

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

TEST(InterruptOfATerminal, AsksToStopHoweverOftenItComes) {
  EXPECT_EXIT(
      {
        std::signal(SIGHUP, SIG_DFL);
        install_interrupt_handlers();
        std::raise(SIGHUP);
        std::raise(SIGHUP);
        std::_Exit(interrupt_requested() ? 7 : 8);
      },
      ::testing::ExitedWithCode(7), "");
}

TEST(InterruptOfATerminal, SigintEndsTheProcessAfterIt) {
  EXPECT_EXIT(
      {
        std::signal(SIGHUP, SIG_DFL);
        install_interrupt_handlers();
        std::raise(SIGHUP);
        std::raise(SIGINT);
      },
      ::testing::ExitedWithCode(130), "");
}

TEST(InterruptOfATerminal, StaysIgnoredUnderNohup) {
  EXPECT_EXIT(
      {
        std::signal(SIGHUP, SIG_IGN);
        install_interrupt_handlers();
        std::raise(SIGHUP);
        std::_Exit(interrupt_requested() ? 7 : 8);
      },
      ::testing::ExitedWithCode(8), "");
}

}  // namespace
}  // namespace nanochat
