#pragma once
// Internal to evaluation: code of the sandbox's processes between clone() and exec(). The parent has threads, so
// this code must not allocate, lock or throw; it only makes system calls with strings that the parent has prepared.

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "evaluation/sandbox.h"

namespace nanochat::sandbox {

// The setup step that failed; kReady after the program has started.
enum class Stage : int {
  kReady,
  kGo,
  kMount,
  kTmpfs,
  kBind,
  kReadOnly,
  kPivot,
  kProgram,
  kIdentity,
  kSession,
  kFilter,
  kLimits,
  kExec,
};
const char* describe(Stage stage);

// Sent through the report pipe: first the result of the setup, then how the program ended.
struct Report {
  Stage stage = Stage::kReady;
  int error = 0;   // errno of the stage
  int status = 0;  // of wait(): meaningful in the second report
};

struct Mount {
  std::string source, target;  // target below the new root
  bool folder = true;
};

// All input of the child.
struct Plan {
  bool namespaces = true;
  bool seccomp = true;
  bool drop_to_nobody = true;  // if the process is root
  std::string root;             // an empty folder: mount point of the new root; without namespaces the working folder
  std::string tmpfs_options, tmp_options;
  std::vector<std::string> folders;                        // to make, parents first
  std::vector<std::pair<std::string, std::string>> links;  // target, path
  std::vector<Mount> mounts;
  std::string program_path;  // where the program's text is written, in the new root
  const std::string* program = nullptr;
  std::vector<char*> arguments, environment;  // null-terminated
  SandboxLimits limits;
  int go = -1, standard_input = -1, standard_output = -1, report = -1, standard_error = -1;
};

// The first process in the namespaces: sets everything up, starts the program and waits for it. Never returns.
[[noreturn]] void run_init(const Plan& plan);

// Refuses system calls that a pure computation does not need, and signals to other
// processes than the caller. False, with errno, if the kernel has no such filter.
bool install_filter();

inline constexpr unsigned kNobody = 65534;
inline constexpr int kFinished = 42;  // exit code of a program that ran to its end

}  // namespace nanochat::sandbox
