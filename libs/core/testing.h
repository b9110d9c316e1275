#pragma once
// For tests only: temporary folders and the shared reference data that is never part of the repository.

#include <filesystem>
#include <optional>
#include <string>

namespace nanochat::testing {

// The folder beside the repository with real data and parity fixtures: NANOCHAT_SHARED_DIR, else ../shared. nullopt
// if `relative` is absent in it; callers then GTEST_SKIP() with a message.
std::optional<std::filesystem::path> shared_path(const std::string& relative);

// A fresh folder, removed with everything in it at the end of scope.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

void write_text(const std::filesystem::path& path, const std::string& text);

}  // namespace nanochat::testing

// Skips the current test, saying which file is missing, when shared data is absent.
#define NANOCHAT_SHARED_OR_SKIP(variable, relative)                                               \
  const auto variable##_optional = ::nanochat::testing::shared_path(relative);                    \
  if (!variable##_optional) GTEST_SKIP() << "needs shared/" << (relative) << ", which is absent"; \
  const std::filesystem::path variable = *variable##_optional
