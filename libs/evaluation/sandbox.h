#pragma once
// Runs Python programs written by a model, which are not trusted. A program runs in its own process
// in new namespaces: it sees no other process (pid), only the interpreter's files, read-only, and a
// private /tmp (mount), no network (network), and is an unprivileged user (user). A system-call
// filter (seccomp) refuses sockets, new processes, tracing, mounts and the like. Memory, CPU time,
// wall time, files and output are limited. Everything it leaves ends with the namespace. Linux only.
//
// Thread-safe: several programs may run at a time.

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
  std::size_t processes = 16;                         // including threads, if no filter forbids new processes
};

// The protections that are active on this machine.
struct SandboxProtections {
  bool user_namespace = false, pid_namespace = false, mount_namespace = false, network_namespace = false;
  bool seccomp = false;
  bool unprivileged_uid = false;
  bool limits = true;   // rlimits and wall time hold everywhere
  std::string missing;  // why namespaces are not available

  bool isolated() const { return user_namespace && pid_namespace && mount_namespace && network_namespace; }
  std::string describe() const;  // "active: user namespace, …; missing: …"
};

struct SandboxResult {
  bool success = false;  // the program ran to its end, without an exception or an exit
  bool timed_out = false, memory_exceeded = false, output_exceeded = false;
  std::string standard_output, standard_error;  // the first 64 KiB of each
  std::string error;  // one line with the reason if it failed
};

class Sandbox {
 public:
  // Runs an empty program to find out what this machine allows. Throws ConfigError if there is no
  // python3, and, unless `allow_unsandboxed`, if user, pid, mount or network isolation is not available.
  explicit Sandbox(bool allow_unsandboxed = false, const SandboxLimits& limits = {}, const std::string& python = "python3");
  ~Sandbox();

  const SandboxProtections& protections() const;
  const PythonInterpreter& python() const;
  // The program's globals are empty, as in exec(program, {}): its
  // __name__ is "builtins". Throws IoError if no process can be started.
  SandboxResult run(const std::string& program) const;

 private:
  struct Impl;
  std::unique_ptr<const Impl> impl_;
};

}  // namespace nanochat
