#pragma once
// For tests only: training by several processes of the program, and what such a run leaves.

#include <sys/types.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "program.h"
#include "small_run.h"

namespace nanochat::testing {

using Arguments = std::vector<std::string>;

inline constexpr double kLossTolerance = 1e-5;  // float32, summed in another order

inline Arguments joined(Arguments first, const Arguments& more) {
  first.insert(first.end(), more.begin(), more.end());
  return first;
}

// For runs that are compared: on one CPU thread each, in float32.
inline const Arguments kInFloat32{"--dtype", "float32", "--muon-dtype", "float32", "--device", "cpu", "--threads", "1"};

inline Arguments launched(int processes, const Arguments& command, const Arguments& options = {}) {
  if (processes == 1) return command;
  return joined(joined({"launch", "--nproc", std::to_string(processes), "--grace", "5"}, options), joined({"--"}, command));
}

inline const std::map<std::string, std::string> kOneThread{{"OMP_NUM_THREADS", "1"}};

inline ProgramResult run(int processes, const Arguments& command, const Arguments& options = {}) {
  return run_program(launched(processes, command, options), "", kOneThread);
}

inline std::vector<double> figures(const std::filesystem::path& folder, const std::string& key) {
  std::vector<double> found;
  std::ifstream file(folder / "metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    const auto row = nlohmann::json::parse(line);
    if (row.contains(key)) found.push_back(row.at(key));
  }
  return found;
}

inline void expect_same_figures(const std::filesystem::path& one, const std::filesystem::path& other, const std::string& key,
                                std::size_t count) {
  const std::vector<double> a = figures(one, key), b = figures(other, key);
  ASSERT_EQ(a.size(), count) << key;
  ASSERT_EQ(b.size(), count) << key;
  double worst = 0;
  for (std::size_t i = 0; i < count; ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  EXPECT_LE(worst, kLossTolerance) << key;
  ::testing::Test::RecordProperty(("largest difference of " + key).c_str(), std::to_string(worst));
}

inline std::filesystem::path checkpoint(const std::filesystem::path& folder, int step) {
  char name[32];
  std::snprintf(name, sizeof name, "step-%06d", step);
  return folder / "checkpoints" / name;
}

// Processes of this run with this rank, as the system knows them.
inline std::vector<pid_t> processes_of(const std::filesystem::path& folder, int rank) {
  const auto holds = [](const std::filesystem::path& file, const std::string& text) {
    std::ifstream stream(file);
    const std::string all{std::istreambuf_iterator<char>(stream), {}};
    return ('\0' + all).find('\0' + text + '\0') != std::string::npos;
  };
  std::vector<pid_t> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    if (holds(entry.path() / "cmdline", folder.string()) && holds(entry.path() / "environ", "RANK=" + std::to_string(rank))) {
      found.push_back(std::stoi(name));
    }
  }
  return found;
}

inline bool comes_true(const std::function<bool()>& condition, double seconds = 90) {
  for (const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
       std::chrono::steady_clock::now() < end;) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

// 4 micro-batches of 4 rows of 64 tokens, in float32 everywhere.
inline Arguments pretraining(const std::filesystem::path& output, int steps, const Arguments& more = {}) {
  return joined({"pretrain",
                 "--recipe",
                 "nanochat-2025-12",
                 "--data-dir",
                 small_run().shards,
                 "--output-dir",
                 output,
                 "--depth",
                 "2",
                 "--sequence-len",
                 "64",
                 "--device-batch-size",
                 "4",
                 "--total-batch-size",
                 "1024",
                 "--num-iterations",
                 std::to_string(steps),
                 "--eval-tokens",
                 "2048",
                 "--eval-interval",
                 "-1",
                 "--sample-interval",
                 "-1",
                 "--warmdown-ratio",
                 "0"},
                joined(kInFloat32, more));
}

}  // namespace nanochat::testing
