#include <dlfcn.h>

#include <system_error>
#include <vector>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "data/rows/arrow_module.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;

// Beside the program, or where the build left it (for tests, which lie in another folder).
std::vector<fs::path> candidates() {
  std::vector<fs::path> paths;
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  const fs::path built = NANOCHAT_ARROW_MODULE;
  if (!error) {
    paths.push_back(program.parent_path() / built.filename());
    paths.push_back(program.parent_path().parent_path() / "lib" / built.filename());
  }
  paths.push_back(built);
  return paths;
}

struct Loaded {
  const ArrowModule* module = nullptr;
  std::string failure;
};

// The module stays loaded: Arrow has threads and statics of its own.
Loaded load() {
  Loaded loaded;
  for (const fs::path& path : candidates()) {
    std::error_code error;
    if (!fs::exists(path, error)) continue;
    void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      loaded.failure = dlerror();
      continue;
    }
    using Entry = const ArrowModule* (*)();
    const auto entry = reinterpret_cast<Entry>(dlsym(handle, kArrowModuleEntry));
    if (entry != nullptr && entry()->version == kArrowModuleVersion) {
      loaded.module = entry();
      return loaded;
    }
    loaded.failure = fmt::format("{} is of another build", path.string());
  }
  if (loaded.failure.empty()) loaded.failure = fmt::format("no {}", candidates().front().string());
  return loaded;
}

}  // namespace

const ArrowModule& arrow_module(const fs::path& file) {
  static const Loaded loaded = load();
  if (loaded.module == nullptr) {
    throw DataError(fmt::format("{}: what reads .parquet and .zst cannot be loaded: {}", file.string(), loaded.failure));
  }
  return *loaded.module;
}

}  // namespace nanochat
