#include "core/errors.h"

#include <gtest/gtest.h>

namespace nanochat {
namespace {

template <class E>
ExitCode code_of() {
  try {
    throw E("what happened");
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "what happened");
    return error.code();
  }
}

TEST(Errors, EachTypeHasTheExitCodeOfItsKind) {
  EXPECT_EQ(code_of<ConfigError>(), ExitCode::kUsage);
  EXPECT_EQ(code_of<DataError>(), ExitCode::kData);
  EXPECT_EQ(code_of<TokenizerError>(), ExitCode::kData);
  EXPECT_EQ(code_of<CheckpointError>(), ExitCode::kCheckpoint);
  EXPECT_EQ(code_of<IoError>(), ExitCode::kOther);
  EXPECT_EQ(code_of<OutOfMemoryError>(), ExitCode::kOther);
  EXPECT_EQ(code_of<NumericalError>(), ExitCode::kOther);
}

}  // namespace
}  // namespace nanochat
