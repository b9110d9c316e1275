#pragma once
// Runs Python that a model has written, as if it wished us ill. The program runs in a process of its own in fresh
// namespaces: it sees no other process (pid), no file but the interpreter's own, read-only, and a private /tmp (mount),
// no network (network), and is an unprivileged user there (user). A system-call filter (seccomp) refuses sockets, new
// processes, tracing, mounts and the like; limits hold memory, CPU time, wall time, files and output. What it leaves
// behind dies with the namespace. Linux only, as this program is.
//
// Thread-safe: any number of programs may run at a time.

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "evaluation/python_interpreter.h"

namespace nanochat {

struct SandboxLimits {
  double wall_seconds = 5.0;  // the reference's timeout
  std::size_t memory_bytes = std::size_t{512} << 20;  // address space
  std::size_t output_bytes = std::size_t{1} << 20;    // of standard output and error together; more ends the program
  std::size_t tmp_bytes = std::size_t{16} << 20;      // of /tmp, and of a file
  std::size_t processes = 16;                         // threads among them, where no filter forbids new processes
};

// What holds on this machine.
struct SandboxProtections {
  bool user_namespace = false, pid_namespace = false, mount_namespace = false, network_namespace = false;
  bool seccomp = false;
  bool unprivileged_uid = false;
  bool limits = true;   // rlimits and wall time hold everywhere
  std::string missing;  // why the namespaces are not there

  bool isolated() const { return user_namespace && pid_namespace && mount_namespace && network_namespace; }
  std::string describe() const;  // "active: user namespace, …; missing: …"
};

struct SandboxResult {
  bool success = false;  // the program ran to its end: it raised nothing and did not exit by itself
  bool timed_out = false, memory_exceeded = false, output_exceeded = false;
  std::string standard_output, standard_error;  // the first 64 KiB of each
  std::string error;  // one line that says why it is no success
};

class Sandbox {
 public:
  // Finds out what this machine allows by running an empty program. Throws ConfigError when there is no python3, and,
  // unless `allow_unsandboxed`, when user, pid, mount and network isolation are not all there.
  explicit Sandbox(bool allow_unsandboxed = false, const SandboxLimits& limits = {}, const std::string& python = "python3");
  ~Sandbox();

  const SandboxProtections& protections() const;
  const PythonInterpreter& python() const;
  // The program's globals are empty, as with exec(program, {}): its __name__ is "builtins". Throws IoError when no
  // process can be started.
  SandboxResult run(const std::string& program) const;

 private:
  struct Impl;
  std::unique_ptr<const Impl> impl_;
};

}  // namespace nanochat
