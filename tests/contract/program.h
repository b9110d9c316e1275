#pragma once
// Runs the built program as a user would, and collects what it did.

#include <map>
#include <string>
#include <vector>

namespace nanochat::testing {

std::string program_path();

struct ProgramResult {
  int exit_code = -1;  // 128 + N when signal N ended it
  std::string out, err;
};

// `environment` is set on top of the test's own; `input` is its standard input. Throws std::runtime_error when the
// program cannot be started.
ProgramResult run_program(const std::vector<std::string>& arguments, const std::string& input = "",
                          const std::map<std::string, std::string>& environment = {});

}  // namespace nanochat::testing
