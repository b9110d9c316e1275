#include "runtime/precision.h"

#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "core/testing.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(FasterDtype, GoesByTheRates) {
  EXPECT_EQ(faster_dtype({.float32 = 257e9, .bfloat16 = 135e9}), at::kFloat) << "a Xeon without AMX, under a hypervisor";
  EXPECT_EQ(faster_dtype({.float32 = 150e9, .bfloat16 = 400e9}), at::kBFloat16);
  EXPECT_EQ(faster_dtype({.float32 = 1e9, .bfloat16 = 1e9}), at::kBFloat16) << "half the memory";
  EXPECT_EQ(faster_dtype({.float32 = 1e9, .bfloat16 = 0.999e9}), at::kFloat);
}

// A variable of the environment, until the end of a scope.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) {
    if (const char* before = std::getenv(name)) before_ = before;
    value == nullptr ? ::unsetenv(name) : ::setenv(name, value, 1);
  }
  ~Variable() { before_ ? ::setenv(name_, before_->c_str(), 1) : ::unsetenv(name_); }

 private:
  const char* name_;
  std::optional<std::string> before_;
};

class CachedRates : public ::testing::Test {
 protected:
  PrecisionRates ask(const std::string& machine, Workload workload = Workload::kTraining) {
    return cached_rates(cache_, machine, workload, [this] {
      ++measured_;
      return PrecisionRates{100.0 * measured_, 200.0};
    });
  }
  std::vector<fs::path> files() const {
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(cache_)) found.push_back(entry.path());
    return found;
  }
  testing::TemporaryDirectory folder_;
  fs::path cache_ = folder_ / "cache/nanochat";
  int measured_ = 0;
};

TEST_F(CachedRates, AreMeasuredOnce) {
  const PrecisionRates first = ask("machine");
  EXPECT_EQ(first, (PrecisionRates{100.0, 200.0}));
  EXPECT_EQ(ask("machine"), first);
  EXPECT_EQ(measured_, 1);
  EXPECT_EQ(files().size(), 1U);
}

TEST_F(CachedRates, AreOfOneMachineAndWorkload) {
  ask("machine");
  EXPECT_EQ(ask("another").float32, 200.0);
  EXPECT_EQ(ask("machine", Workload::kDecoding).float32, 300.0);
  EXPECT_EQ(ask("machine").float32, 100.0);
  EXPECT_EQ(measured_, 3);
}

TEST_F(CachedRates, OfADamagedFileAreMeasuredAgain) {
  ask("machine");
  const fs::path file = files().front();
  const std::string whole = read_file(file);
  for (const std::string& damaged : {std::string(), whole.substr(0, whole.size() / 2), std::string("[1, 2]"), std::string("{}"),
                                     std::string(R"({"machine": "machine", "float32": "fast", "bfloat16": 2})"),
                                     std::string(R"({"machine": "machine", "float32": -1, "bfloat16": 2})"),
                                     std::string(R"({"machine": "another", "float32": 1, "bfloat16": 2})")}) {
    testing::write_text(file, damaged);
    const int before = measured_;
    EXPECT_EQ(ask("machine").bfloat16, 200.0) << damaged;
    EXPECT_EQ(measured_, before + 1) << damaged;
    EXPECT_NE(read_file(file), damaged) << "written anew";
  }
}

TEST_F(CachedRates, AFolderThatCannotBeWrittenDoesNoHarm) {
  testing::write_text(folder_ / "file", "in the way");
  cache_ = folder_ / "file/nanochat";
  EXPECT_EQ(ask("machine").float32, 100.0);
  EXPECT_EQ(ask("machine").float32, 200.0) << "measured again";
  cache_ = fs::path();
  EXPECT_EQ(ask("machine").float32, 300.0);
}

TEST(PrecisionCacheFolder, FollowsTheEnvironment) {
  const Variable home("HOME", "/home/somebody");
  {
    const Variable cache("XDG_CACHE_HOME", "/elsewhere");
    EXPECT_EQ(precision_cache_folder(), "/elsewhere/nanochat");
  }
  for (const char* unusable : {static_cast<const char*>(nullptr), "", "relative"}) {
    const Variable cache("XDG_CACHE_HOME", unusable);
    EXPECT_EQ(precision_cache_folder(), "/home/somebody/.cache/nanochat");
    const Variable homeless("HOME", nullptr);
    EXPECT_EQ(precision_cache_folder(), fs::path());
  }
}

TEST(DescribeMeasuredMachine, NamesWhatAMeasurementDependsOn) {
  const Variable cpu("NANOCHAT_CPU", nullptr), aten("ATEN_CPU_CAPABILITY", nullptr);
  const std::string two = describe_measured_machine(2);
  EXPECT_EQ(two, describe_measured_machine(2));
  EXPECT_THAT(two, HasSubstr("hypervisor: "));
  EXPECT_THAT(two, HasSubstr("threads: 2 on "));
  EXPECT_THAT(two, HasSubstr("LibTorch "));
#ifdef __x86_64__
  for (const char* key : {"model name: ", "model: ", "cpu family: ", "flags: "}) EXPECT_THAT(two, HasSubstr(key));
#endif
  EXPECT_NE(two, describe_measured_machine(1));
  for (const auto& [name, value] : {std::pair{"NANOCHAT_CPU", "avx2"}, {"ATEN_CPU_CAPABILITY", "default"}}) {
    const Variable choice(name, value);
    EXPECT_THAT(describe_measured_machine(2), HasSubstr(std::string(name) + "=" + value));
  }
}

TEST(PrecisionRatesOfThisMachine, AreKeptInMemoryAndOnDisk) {
  const testing::TemporaryDirectory folder;
  const Variable cache("XDG_CACHE_HOME", folder.path().c_str());
  const PrecisionRates first = precision_rates(Workload::kTraining, 1);
  EXPECT_EQ(precision_rates(Workload::kTraining, 1), first);
  EXPECT_TRUE(fs::exists(folder / "nanochat"));
  fs::remove_all(folder / "nanochat");
  EXPECT_EQ(precision_rates(Workload::kTraining, 1), first) << "what this process measured stands";
  EXPECT_EQ(cached_rates(folder / "nanochat", describe_measured_machine(1), Workload::kTraining, [&] { return first; }), first);
}

}  // namespace
}  // namespace nanochat
