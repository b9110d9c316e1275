#pragma once
// For tests only: two machines, which are network namespaces of this one with host names of their own, "machine-0" and
// "machine-1", and a cable between them.

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace nanochat::testing {

// A process that holds the namespaces of a machine.
class Machine {
 public:
  // `same_user_namespace` is that of a process, or 0 for a new one where this process is not root.
  Machine(const std::string& name, pid_t same_user_namespace);
  ~Machine();
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  bool works() const { return holder_ > 0; }
  pid_t holder() const { return holder_; }
  // Runs a program of the system there. Its exit code.
  int run(const std::vector<std::string>& words) const;

 private:
  pid_t holder_ = -1;
};

class TwoMachines {
 public:
  TwoMachines();
  // Why there are none; empty when there are.
  const std::string& missing() const { return missing_; }
  const Machine& operator[](std::size_t machine) const { return machine == 0 ? first_ : second_; }
  static const char* address(std::size_t machine) { return machine == 0 ? "10.77.0.1" : "10.77.0.2"; }
  // Takes the cable out of machine 1, or puts it back: what is sent meanwhile is lost, and nobody is told.
  void set_cable(bool connected) const;
  // What has gone through the cable so far, in both directions, with the headers of its packets.
  std::int64_t bytes_sent() const;

 private:
  std::string missing_;
  Machine first_, second_;
};

}  // namespace nanochat::testing
