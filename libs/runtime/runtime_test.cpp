#include "runtime/runtime.h"

#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/errors.h"
#include "core/options.h"
#include "core/thread_pool.h"
#include "ops/device.h"
#include "ops/paged_attention.h"
#include "runtime/environment.h"
#include "runtime/precision.h"

namespace nanochat {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::ThrowsMessage;

TEST(SelectRuntime, AutoTakesWhatWasMeasuredToBeFaster) {
  const int threads = available_threads();
  for (const Workload workload : {Workload::kTraining, Workload::kDecoding}) {
    EXPECT_EQ(select_runtime({.device = "cpu"}, workload).dtype, faster_dtype(precision_rates(workload, threads)));
  }
  const Runtime runtime = select_runtime({.device = "cpu"}, Workload::kTraining);
  EXPECT_TRUE(runtime.device.is_cpu());
  EXPECT_EQ(runtime.threads, threads);
  EXPECT_THAT(runtime.description, HasSubstr(dtype_name(runtime.dtype)));
}

TEST(SelectRuntime, TakesExplicitChoices) {
  const Runtime runtime = select_runtime({.device = "cpu", .dtype = "float32", .threads = 1}, Workload::kTraining);
  EXPECT_EQ(runtime.dtype, at::kFloat);
  EXPECT_EQ(at::get_num_threads(), 1);
  EXPECT_EQ(select_runtime({.device = "cpu", .dtype = "bfloat16"}, Workload::kTraining).dtype, at::kBFloat16);
}

TEST(SelectRuntime, RefusesDevicesItDoesNotHave) {
  for (const char* name : {"tpu", "cuda:", "cuda:x", "cuda:123", "cuda0", "gpu"}) {
    EXPECT_THAT([&] { select_runtime({.device = name}, Workload::kTraining); },
                ThrowsMessage<ConfigError>(HasSubstr("unknown device")));
  }
  const auto last = [] { select_runtime({.device = "cuda:99"}, Workload::kTraining); };
  if (!ops::cuda_built()) {
    EXPECT_THAT(last, ThrowsMessage<ConfigError>(HasSubstr("no CUDA backend")));
  } else if (ops::cuda_devices() == 0) {
    EXPECT_THAT(last, ThrowsMessage<ConfigError>(HasSubstr("no usable NVIDIA GPU")));
  } else {
    EXPECT_THAT(last, ThrowsMessage<ConfigError>(HasSubstr("has GPUs 0 to")));
  }
}

TEST(SelectRuntime, AutoPrefersAGpu) {
  const Runtime runtime = select_runtime({}, Workload::kTraining);
  EXPECT_EQ(runtime.device.is_cuda(), ops::cuda_devices() > 0);
  if (!runtime.device.is_cuda()) GTEST_SKIP() << "no GPU that this build can use";
  EXPECT_THAT(runtime.description, HasSubstr(ops::describe_gpu(0).name));
  EXPECT_EQ(select_runtime({.device = "cuda", .dtype = "float32"}, Workload::kTraining).dtype, at::kFloat);
}

TEST(RequireFp8, RefusesTheCpu) {
  const Runtime runtime = select_runtime({.device = "cpu", .dtype = "bfloat16"}, Workload::kTraining);
  EXPECT_THAT([&] { require_fp8(runtime); }, ThrowsMessage<ConfigError>(HasSubstr("--fp8 needs a GPU")));
}

TEST(RequireFp8Cache, RefusesTheCpuAndFloat32) {
  EXPECT_THAT([] { require_fp8_cache(at::kCPU, at::kBFloat16); },
              ThrowsMessage<ConfigError>(AllOf(HasSubstr("--kv-cache-dtype fp8 needs a GPU of compute capability 8.9"),
                                               HasSubstr("use --kv-cache-dtype auto"))));
  const at::Device gpu(at::kCUDA, 0);
  if (ops::cuda_devices() == 0) return;
  if (!ops::has_fp8_cache(gpu)) {
    EXPECT_THAT([&] { require_fp8_cache(gpu, at::kBFloat16); }, ThrowsMessage<ConfigError>(HasSubstr("8.9 or later, but")));
    return;
  }
  require_fp8_cache(gpu, at::kBFloat16);
  EXPECT_THAT([&] { require_fp8_cache(gpu, at::kFloat); }, ThrowsMessage<ConfigError>(HasSubstr("needs --dtype bfloat16")));
}

TEST(DescribeEnvironment, NamesDeviceProcessorMemoryAndSystem) {
  const Runtime runtime = select_runtime({.device = "cpu", .dtype = "float32", .threads = 1}, Workload::kTraining);
  const nlohmann::json environment = describe_environment(runtime);
  EXPECT_EQ(environment.at("device"), runtime.description);
  EXPECT_THAT(environment.at("processor").get<std::string>(), HasSubstr(" cores for this process"));
  EXPECT_THAT(environment.at("memory").get<std::string>(), MatchesRegex("[0-9.]+ [MGT]iB"));
  EXPECT_THAT(environment.at("system").get<std::string>(), HasSubstr("Linux"));
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
