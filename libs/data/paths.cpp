#include "data/paths.h"

#include <glob.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <set>
#include <system_error>

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include "core/errors.h"
#include "data/byte_source.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;

bool has_extension(const fs::path& path, const std::vector<std::string>& extensions) {
  const std::string name = path.filename().string();
  return std::any_of(extensions.begin(), extensions.end(), [&](const std::string& extension) {
    return name.size() > extension.size() && name.ends_with(extension);
  });
}

void add_folder(const fs::path& folder, const std::vector<std::string>& extensions, std::vector<fs::path>& files) {
  const std::size_t before = files.size();
  std::error_code error;
  fs::recursive_directory_iterator entry(folder, error);
  for (; !error && entry != fs::recursive_directory_iterator(); entry.increment(error)) {
    if (entry->path().filename().string().starts_with('.')) {
      if (entry->is_directory(error)) entry.disable_recursion_pending();
      continue;
    }
    if (entry->is_regular_file(error) && has_extension(entry->path(), extensions)) files.push_back(entry->path());
  }
  if (error) throw DataError(fmt::format("cannot read folder {}: {}", folder.string(), error.message()));
  std::sort(files.begin() + static_cast<std::ptrdiff_t>(before), files.end());
}

std::vector<fs::path> glob_matches(const std::string& pattern) {
  glob_t result{};
  const std::unique_ptr<glob_t, decltype(&globfree)> release(&result, &globfree);
  const int code = glob(pattern.c_str(), GLOB_TILDE, nullptr, &result);
  if (code != 0 && code != GLOB_NOMATCH) throw DataError(fmt::format("cannot expand {}: glob failed", pattern));
  return {result.gl_pathv, result.gl_pathv + result.gl_pathc};
}

class Expansion {
 public:
  Expansion(const std::vector<std::string>& extensions, const std::string& what, bool standard_input)
      : extensions_(extensions), what_(what), standard_input_(standard_input), known_(fmt::format("{}", fmt::join(extensions, ", "))) {}

  void add(const std::string& path) {
    if (path == kStandardInput && standard_input_) return keep(path);
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    if (fs::is_directory(status)) return add_checked(path, folder(path));
    if (fs::is_regular_file(status)) return add_file(path);
    if (fs::exists(status)) throw DataError(fmt::format("{} is neither a file nor a folder", path));
    if (error && error != std::errc::no_such_file_or_directory) {
      throw DataError(fmt::format("cannot read {}: {}", path, error.message()));
    }
    if (path.find_first_of("*?[~") == std::string::npos) {
      throw DataError(fmt::format("{}: no such file or folder", path));
    }
    add_glob(path);
  }

  std::vector<fs::path> take() { return std::move(files_); }

 private:
  std::vector<fs::path> folder(const fs::path& path) const {
    std::vector<fs::path> found;
    add_folder(path, extensions_, found);
    return found;
  }

  void add_file(const fs::path& path) {
    if (!has_extension(path, extensions_)) {
      throw DataError(fmt::format("{}: unknown extension for {}; known are {}", path.string(), what_, known_));
    }
    if (fs::file_size(path) == 0) throw DataError(fmt::format("{}: the file is empty", path.string()));
    keep(path);
  }

  void add_glob(const std::string& pattern) {
    std::vector<fs::path> found;
    for (const fs::path& match : glob_matches(pattern)) {
      if (fs::is_directory(match)) {
        add_folder(match, extensions_, found);
      } else if (has_extension(match, extensions_)) {
        found.push_back(match);
      }
    }
    if (found.empty()) throw DataError(fmt::format("{} matches no {} file ({})", pattern, what_, known_));
    add_checked(pattern, found);
  }

  void add_checked(const std::string& path, const std::vector<fs::path>& found) {
    if (found.empty()) throw DataError(fmt::format("folder {} holds no {} file ({})", path, what_, known_));
    for (const fs::path& file : found) keep(file);
  }

  void keep(const fs::path& file) {
    if (seen_.insert(fs::weakly_canonical(file).string()).second) files_.push_back(file);
  }

  const std::vector<std::string>& extensions_;
  std::string what_;
  bool standard_input_;
  std::string known_;
  std::set<std::string> seen_;
  std::vector<fs::path> files_;
};

}  // namespace

std::vector<fs::path> expand_paths(const std::vector<std::string>& paths, const std::vector<std::string>& extensions,
                                   const std::string& what, bool standard_input) {
  if (paths.empty()) throw DataError(fmt::format("no {} given: name files, folders or globs", what));
  Expansion expansion(extensions, what, standard_input);
  for (const std::string& path : paths) expansion.add(path);
  return expansion.take();
}

bool names_shards(const std::string& path) {
  if (path.ends_with(".tok")) return true;
  if (!std::filesystem::is_directory(path)) return false;
  for (const auto& entry : std::filesystem::directory_iterator(path)) {
    if (entry.path().extension() == ".tok") return true;
  }
  return false;
}

}  // namespace nanochat
