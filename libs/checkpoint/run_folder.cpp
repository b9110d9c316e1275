#include "checkpoint/run_folder.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <optional>
#include <set>
#include <string_view>
#include <system_error>

#include <nlohmann/json.hpp>

#include "checkpoint/json_file.h"
#include "core/atomic_file.h"
#include "core/errors.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kStepPrefix = "step-";
constexpr const char* kRuns = "runs";  // where runs are kept that are known by name

[[noreturn]] void fail(const fs::path& path, const char* action, const std::error_code& error) {
  throw IoError(path.string() + ": cannot " + action + ": " + error.message());
}

void make_folder(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) fail(path, "create", error);
  if (!fs::is_directory(path, error)) throw IoError(path.string() + ": exists and is not a folder");
}

std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> result;
  std::error_code error;
  for (fs::directory_iterator next(folder, error), end; !error && next != end; next.increment(error)) {
    result.push_back(next->path());
  }
  if (error && error != std::errc::no_such_file_or_directory) fail(folder, "read", error);
  return result;
}

// "step-000100" -> 100; nullopt for any other name, so that one step has one name.
std::optional<std::int64_t> step_of(const fs::path& path) {
  const std::string name = path.filename().string();
  if (!name.starts_with(kStepPrefix)) return std::nullopt;
  std::int64_t step = 0;
  const char* last = name.data() + name.size();
  const auto [end, error] = std::from_chars(name.data() + kStepPrefix.size(), last, step);
  if (error != std::errc() || end != last || step < 0) return std::nullopt;
  if (RunFolder::checkpoint_path("", step).filename() != name) return std::nullopt;
  return step;
}

}  // namespace

RunFolder::RunFolder(fs::path folder, bool resume) : folder_(std::move(folder)) {
  if (!resume) {
    for (const char* name : {"config.json", "metrics.jsonl", "checkpoints"}) {
      std::error_code ignored;
      if (!fs::exists(folder_ / name, ignored)) continue;
      throw ConfigError(folder_.string() + ": already holds a run (" + name +
                        "); give --resume to continue it, or another --output-dir");
    }
  }
  make_folder(folder_ / "checkpoints");
  if (resume) remove_leftovers();
}

fs::path RunFolder::checkpoint_path(const fs::path& run, std::int64_t step) {
  char name[32];
  std::snprintf(name, sizeof name, "step-%06lld", static_cast<long long>(step));
  return run / "checkpoints" / name;
}

std::vector<std::int64_t> RunFolder::checkpoint_steps(const fs::path& run) {
  std::vector<std::int64_t> steps;
  for (const fs::path& entry : entries_of(run / "checkpoints")) {
    std::error_code ignored;
    const auto step = step_of(entry);
    if (step && fs::is_directory(entry, ignored)) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

void RunFolder::write_config(const nlohmann::json& resolved) {
  write_file_atomically(folder_ / "config.json", to_json_text(resolved));
}

void RunFolder::mark(const char* name, std::int64_t step) {
  const fs::path target = checkpoint_path(step), link = folder_ / "checkpoints" / name;
  std::error_code error;
  if (!fs::is_directory(target, error)) {
    throw IoError(target.string() + ": no such checkpoint to mark as the " + name);
  }
  const fs::path temporary = folder_ / "checkpoints" / ("." + std::string(name) + ".tmp-" + std::to_string(::getpid()));
  fs::remove(temporary, error);
  fs::create_symlink(target.filename(), temporary, error);  // relative: the run can be moved
  if (error) fail(link, "create", error);
  fs::rename(temporary, link, error);
  if (error) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    fail(link, "replace", error);
  }
}

void RunFolder::prune_checkpoints(std::int64_t keep_last, const std::vector<std::int64_t>& keep) {
  if (keep_last <= 0) return;
  const std::vector<std::int64_t> steps = checkpoint_steps();
  std::set<std::int64_t> kept(keep.begin(), keep.end());
  const std::size_t newest = std::min(steps.size(), static_cast<std::size_t>(keep_last));
  kept.insert(steps.end() - static_cast<std::ptrdiff_t>(newest), steps.end());
  std::error_code error;
  for (const char* link : {"latest", "best"}) {
    const fs::path target = fs::read_symlink(folder_ / "checkpoints" / link, error);
    if (const auto step = step_of(target); !error && step) kept.insert(*step);
  }
  for (const std::int64_t step : steps) {
    if (kept.contains(step)) continue;
    const fs::path path = checkpoint_path(step);
    const fs::path hidden = path.parent_path() / ("." + path.filename().string() + ".removed");
    fs::remove_all(hidden, error);
    fs::rename(path, hidden, error);
    if (error) fail(path, "remove", error);
    fs::remove_all(hidden, error);
    if (error) fail(path, "remove", error);
  }
}

// What a crash interrupted: files, links and checkpoints half-written (".step-000100.tmp-PID-N", see
// core/atomic_file.h) and checkpoints half-removed (".step-000100.removed").
void RunFolder::remove_leftovers() const {
  for (const fs::path& folder : {folder_, folder_ / "checkpoints"}) {
    for (const fs::path& entry : entries_of(folder)) {
      const std::string name = entry.filename().string();
      const std::size_t tag = name.find(".tmp-");
      if (!name.starts_with('.') || (tag == std::string::npos && !name.ends_with(".removed"))) continue;
      if (tag != std::string::npos) {
        int pid = 0;
        std::from_chars(name.data() + tag + 5, name.data() + name.size(), pid);
        if (pid > 0 && pid != ::getpid() && ::kill(pid, 0) == 0) continue;  // another process is still at it
      }
      std::error_code ignored;  // what cannot be removed does no harm
      fs::remove_all(entry, ignored);
    }
  }
}

fs::path locate_run(const fs::path& path) {
  std::error_code ignored;
  if (path.empty() || path.is_absolute() || fs::exists(path, ignored)) return path;
  const fs::path named = fs::path(kRuns) / path;
  return fs::exists(named, ignored) ? named : path;
}

std::string places_of_run(const fs::path& path) {
  if (path.empty() || path.is_absolute()) return path.string();
  return path.string() + ", nor " + (fs::path(kRuns) / path).string();
}

}  // namespace nanochat
