#include "training/trainer/runtime.h"

#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/errors.h"
#include "core/options.h"
#include "core/thread_pool.h"
#include "ops/cast.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(SelectRuntime, AutoTakesWhatTheProcessorIsFastAt) {
  const Runtime runtime = select_runtime({});
  EXPECT_EQ(runtime.dtype, ops::cpu_has_fast_bf16() ? at::kBFloat16 : at::kFloat);
  EXPECT_EQ(runtime.threads, available_threads());
  EXPECT_THAT(runtime.description, HasSubstr(dtype_name(runtime.dtype)));
}

TEST(SelectRuntime, TakesExplicitChoices) {
  const Runtime runtime = select_runtime({.device = "cpu", .dtype = "float32", .threads = 1});
  EXPECT_EQ(runtime.dtype, at::kFloat);
  EXPECT_EQ(at::get_num_threads(), 1);
  EXPECT_EQ(select_runtime({.dtype = "bfloat16"}).dtype, at::kBFloat16);
}

TEST(SelectRuntime, RefusesDevicesItDoesNotHave) {
  EXPECT_THAT([] { select_runtime({.device = "cuda:0"}); }, ThrowsMessage<ConfigError>(HasSubstr("no CUDA backend")));
  EXPECT_THAT([] { select_runtime({.device = "tpu"}); }, ThrowsMessage<ConfigError>(HasSubstr("tpu")));
}

TEST(DeclareRuntimeOptions, ChecksThePrecision) {
  RuntimeOptions runtime;
  OptionList options;
  declare_runtime_options(options, runtime);
  options.find("dtype")->set_text({"bfloat16"}, "--dtype", "flag");
  EXPECT_EQ(runtime.dtype, "bfloat16");
  EXPECT_THROW(options.find("dtype")->set_text({"float8"}, "--dtype", "flag"), ConfigError);
  EXPECT_THROW(options.find("threads")->set_text({"-1"}, "--threads", "flag"), ConfigError);
}

}  // namespace
}  // namespace nanochat
