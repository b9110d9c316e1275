#pragma once
// The Python interpreter for generated programs, found on this machine at run time.

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace nanochat {

struct PythonInterpreter {
  std::filesystem::path executable;  // the program itself, not a link or wrapper script
  std::string version;               // "3.11.7"
  // Folders and files that it needs, which a sandbox must show: its
  // standard library and the system's shared libraries. Real paths.
  std::vector<std::filesystem::path> needed;
  // Symbolic links on the way to them that must exist too: path and target ("/lib64", "usr/lib64").
  std::vector<std::pair<std::filesystem::path, std::filesystem::path>> links;
};

// Asks the first python3 of PATH about itself; nullopt if
// none answers. `program`: another name or path to ask.
std::optional<PythonInterpreter> find_python(const std::string& program = "python3");

}  // namespace nanochat
