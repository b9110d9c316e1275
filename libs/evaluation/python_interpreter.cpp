#include "evaluation/python_interpreter.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <memory>
#include <sstream>

namespace nanochat {
namespace {

namespace fs = std::filesystem;

// Prints the version, the executable and the folders of the standard library, a line each.
constexpr const char* kQuestion =
    "import os, sys, sysconfig; p = sysconfig.get_paths(); print(sys.version.split()[0]); "
    "print(os.path.realpath(sys.executable)); print(p['stdlib']); print(p['platstdlib']); "
    "print(sysconfig.get_config_var('LIBDIR') or '')";

// Where a dynamic linker looks, on the systems this program runs on.
constexpr std::array kLibraryFolders = {"/lib64",
                                        "/usr/lib64",
                                        "/lib/x86_64-linux-gnu",
                                        "/usr/lib/x86_64-linux-gnu",
                                        "/lib/aarch64-linux-gnu",
                                        "/usr/lib/aarch64-linux-gnu"};

std::string quoted(const std::string& word) {
  std::string result = "'";
  for (const char c : word) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return result + "'";
}

std::vector<std::string> ask(const std::string& program) {
  const std::string command = quoted(program) + " -I -c " + quoted(kQuestion) + " 2>/dev/null </dev/null";
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "re"), pclose);
  if (!pipe) return {};
  std::string text;
  std::array<char, 4096> buffer{};
  while (const std::size_t got = fread(buffer.data(), 1, buffer.size(), pipe.get())) text.append(buffer.data(), got);
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

// Takes `path` with the links on its way. Folders inside one that is already there are left out.
void need(PythonInterpreter& python, const fs::path& path) {
  std::error_code error;
  if (path.empty() || !fs::exists(path, error)) return;
  fs::path walked = "/";
  const fs::path relative = path.relative_path();
  for (auto part = relative.begin(); part != relative.end(); ++part) {
    walked /= *part;
    if (!fs::is_symlink(walked, error)) continue;
    const std::pair link{walked, fs::read_symlink(walked, error)};
    if (std::find(python.links.begin(), python.links.end(), link) == python.links.end()) python.links.push_back(link);
    fs::path behind = link.second.is_absolute() ? link.second : walked.parent_path() / link.second;
    for (++part; part != relative.end(); ++part) behind /= *part;
    return need(python, behind.lexically_normal());
  }
  const fs::path real = fs::canonical(path, error);
  if (error) return;
  const bool known = std::any_of(python.needed.begin(), python.needed.end(), [&](const fs::path& have) {
    const auto inside = real.lexically_relative(have);
    return !inside.empty() && *inside.begin() != "..";
  });
  if (!known) python.needed.push_back(real);
}

}  // namespace

std::optional<PythonInterpreter> find_python(const std::string& program) {
  const std::vector<std::string> answer = ask(program);
  std::error_code error;
  if (answer.size() < 4 || !fs::exists(answer[1], error)) return std::nullopt;
  PythonInterpreter python;
  python.version = answer[0];
  python.executable = answer[1];
  for (const char* folder : kLibraryFolders) need(python, folder);
  need(python, answer[2]);
  need(python, answer[3]);
  need(python, python.executable);
  // libpython beside the standard library, where the interpreter is linked with it.
  const fs::path libraries = answer.size() > 4 ? fs::path(answer[4]) : fs::path();
  if (fs::is_directory(libraries, error)) {
    for (const fs::directory_entry& entry : fs::directory_iterator(libraries, error)) {
      if (entry.path().filename().string().starts_with("libpython3")) need(python, entry.path());
    }
  }
  return python;
}

}  // namespace nanochat
