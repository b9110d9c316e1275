#pragma once
// Runs the built program as a user would, and collects what it did.

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/testing.h"

namespace nanochat::testing {

std::string program_path();

// Makes the network and the host name of another process those of the caller. False where the system does not allow it.
bool join_namespaces(pid_t process);

struct ProgramResult {
  int exit_code = -1;  // 128 + N when signal N ended it
  std::string out, err;
};

// Under what it runs.
struct ProgramSetting {
  std::string input = {};                               // its standard input
  std::map<std::string, std::string> environment = {};  // on top of the test's own
  std::uint64_t address_space_bytes = 0;                // as `ulimit -v` limits it; 0: not
  pid_t beside = 0;  // in the network and under the host name of this process; 0: the test's
  bool own_group = false;  // a process group of its own, as a shell's foreground job is
};

// One run of the program. Ends it, by force, when destroyed. Throws std::runtime_error when it cannot be started.
class Program {
 public:
  explicit Program(const std::vector<std::string>& arguments, const ProgramSetting& setting = {});
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  void send(int signal) const;
  void send_to_group(int signal) const;  // and to its children, as a terminal does; with own_group
  bool running();  // or has it ended?
  ProgramResult wait();  // until it ends

 private:
  TemporaryDirectory folder_;
  pid_t child_ = -1;
  int status_ = 0;
  bool ended_ = false;
};

// Runs it to its end.
ProgramResult run_program(const std::vector<std::string>& arguments, const std::string& input = "",
                          const std::map<std::string, std::string>& environment = {});

}  // namespace nanochat::testing
