#include "core/testing.h"

#include <stdlib.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <stdexcept>

namespace nanochat::testing {

namespace fs = std::filesystem;

std::optional<fs::path> shared_path(const std::string& relative) {
  const char* from_environment = std::getenv("NANOCHAT_SHARED_DIR");
  const fs::path root = from_environment != nullptr ? from_environment : NANOCHAT_DEFAULT_SHARED_DIR;
  fs::path path = root / relative;
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return std::nullopt;
  return path;
}

TemporaryDirectory::TemporaryDirectory() {
  std::string name = (fs::temp_directory_path() / "nanochat-test-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error(name + ": " + std::strerror(errno));
  path_ = name;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

void write_text(const fs::path& path, const std::string& text) {
  std::ofstream stream(path, std::ios::binary);
  stream << text;
  stream.close();
  if (!stream) throw std::runtime_error(path.string() + ": cannot be written");
}

}  // namespace nanochat::testing
