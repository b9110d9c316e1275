#include "core/git_lfs.h"

#include <array>
#include <charconv>
#include <cstdint>
#include <fstream>
#include <string>
#include <system_error>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/format.h"

namespace nanochat {

void refuse_lfs_pointer(std::string_view contents, const std::filesystem::path& path) {
  if (contents.size() >= kMaxLfsPointerBytes || !contents.starts_with("version https://git-lfs.github.com/spec/v1") ||
      contents.find("\noid sha256:") == std::string_view::npos) {
    return;
  }
  std::string real;
  if (const std::size_t at = contents.find("\nsize "); at != std::string_view::npos) {
    std::uint64_t bytes = 0;
    const std::string_view number = contents.substr(at + 6);
    if (std::from_chars(number.data(), number.data() + number.size(), bytes).ec == std::errc()) {
      real = fmt::format(" of {}", human_bytes(static_cast<double>(bytes)));
    }
  }
  throw DataError(
      fmt::format("{}: is a Git LFS pointer, not the file itself{}; run `git lfs pull` in its repository, or "
                  "download the file",
                  path.string(), real));
}

void refuse_lfs_pointer(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return;
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  if (error || size >= kMaxLfsPointerBytes) return;
  std::ifstream stream(path, std::ios::binary);
  std::array<char, kMaxLfsPointerBytes> bytes{};
  stream.read(bytes.data(), static_cast<std::streamsize>(size));
  refuse_lfs_pointer(std::string_view(bytes.data(), static_cast<std::size_t>(stream.gcount())), path);
}

}  // namespace nanochat
