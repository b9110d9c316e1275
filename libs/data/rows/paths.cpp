#include "data/rows/paths.h"

#include <glob.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <set>
#include <system_error>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;

bool has_format(const fs::path& path, const std::vector<FileFormat>& formats) {
  return std::find(formats.begin(), formats.end(), form_of(path).format) != formats.end();
}

void add_folder(const fs::path& folder, const std::vector<FileFormat>& formats, std::vector<fs::path>& files) {
  const std::size_t before = files.size();
  std::error_code error;
  fs::recursive_directory_iterator entry(folder, error);
  for (; !error && entry != fs::recursive_directory_iterator(); entry.increment(error)) {
    if (entry->path().filename().string().starts_with('.')) {
      if (entry->is_directory(error)) entry.disable_recursion_pending();
      continue;
    }
    if (entry->is_regular_file(error) && has_format(entry->path(), formats)) files.push_back(entry->path());
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
  Expansion(const std::vector<FileFormat>& formats, const std::string& what, bool streams)
      : formats_(formats), what_(what), streams_(streams), known_(endings_of(formats)) {}

  void add(const std::string& path) {
    std::error_code error;
    if (is_stream(path)) {
      if (!streams_) throw DataError(fmt::format("{}: {} cannot be read from a pipe; name the file itself", path, what_));
      if (path != kStandardInput && !fs::exists(path, error)) throw DataError(fmt::format("{}: no such file or folder", path));
      return keep({path, false});
    }
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

  std::vector<FoundFile> take() { return std::move(files_); }

 private:
  // Files below a folder.
  std::vector<FoundFile> folder(const fs::path& path) const {
    std::vector<fs::path> below;
    add_folder(path, formats_, below);
    std::vector<FoundFile> found;
    for (fs::path& file : below) found.push_back({std::move(file), true});
    return found;
  }

  void add_file(const fs::path& path) {
    if (!has_format(path, formats_)) {
      throw DataError(fmt::format("{}: unknown extension for {}; known are {}", path.string(), what_, known_));
    }
    if (fs::file_size(path) == 0) throw DataError(fmt::format("{}: the file is empty", path.string()));
    keep({path, false});
  }

  void add_glob(const std::string& pattern) {
    std::vector<FoundFile> found;
    for (const fs::path& match : glob_matches(pattern)) {
      if (fs::is_directory(match)) {
        for (FoundFile& file : folder(match)) found.push_back(std::move(file));
      } else if (has_format(match, formats_)) {
        found.push_back({match, false});
      }
    }
    if (found.empty()) throw DataError(fmt::format("{} matches no {} file ({})", pattern, what_, known_));
    add_checked(pattern, found);
  }

  void add_checked(const std::string& path, const std::vector<FoundFile>& found) {
    if (found.empty()) throw DataError(fmt::format("folder {} holds no {} file ({})", path, what_, known_));
    for (const FoundFile& file : found) keep(file);
  }

  void keep(FoundFile file) {
    // What stands behind a pipe has no path of its own.
    const fs::path identity = is_stream(file.path) ? file.path : fs::weakly_canonical(file.path);
    if (seen_.insert(identity.string()).second) files_.push_back(std::move(file));
  }

  const std::vector<FileFormat>& formats_;
  std::string what_;
  bool streams_;
  std::string known_;
  std::set<std::string> seen_;
  std::vector<FoundFile> files_;
};

}  // namespace

std::vector<FoundFile> find_files(const std::vector<std::string>& paths, const std::vector<FileFormat>& formats,
                                  const std::string& what, bool streams) {
  if (paths.empty()) throw DataError(fmt::format("no {} given: name files, folders or globs", what));
  Expansion expansion(formats, what, streams);
  for (const std::string& path : paths) expansion.add(path);
  return expansion.take();
}

std::vector<fs::path> expand_paths(const std::vector<std::string>& paths, const std::vector<FileFormat>& formats,
                                   const std::string& what, bool streams) {
  std::vector<fs::path> files;
  for (FoundFile& file : find_files(paths, formats, what, streams)) files.push_back(std::move(file.path));
  return files;
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
