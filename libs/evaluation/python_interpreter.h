#pragma once
// The Python that generated programs run in, found on this machine at run time.

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace nanochat {

struct PythonInterpreter {
  std::filesystem::path executable;  // the program itself: no link, no wrapper script
  std::string version;               // "3.11.7"
  // Folders and files that it needs to run, all that a sandbox has to show: its standard library and the shared
  // libraries of the system. Real paths.
  std::vector<std::filesystem::path> needed;
  // Symbolic links on the way to them that have to be there too: path and what it points to ("/lib64", "usr/lib64").
  std::vector<std::pair<std::filesystem::path, std::filesystem::path>> links;
};

// Asks the first python3 of PATH about itself; nullopt where there is none that answers. `program`: another name or
// path to ask.
std::optional<PythonInterpreter> find_python(const std::string& program = "python3");

}  // namespace nanochat
