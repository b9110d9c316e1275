#include "program.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "core/atomic_file.h"

namespace nanochat::testing {

std::string program_path() { return NANOCHAT_PROGRAM; }

bool join_namespaces(pid_t process) {
  const auto join = [process](const char* kind) {
    const std::string path = "/proc/" + std::to_string(process) + "/ns/" + kind;
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    const bool joined = fd >= 0 && ::setns(fd, 0) == 0;
    if (fd >= 0) ::close(fd);
    return joined;
  };
  join("user");  // fails where it is the caller's own
  return join("net") && join("uts");
}

Program::Program(const std::vector<std::string>& arguments, const ProgramSetting& setting) {
  // Files, not pipes: neither side can wait for the other.
  write_text(folder_ / "in", setting.input);
  std::vector<std::string> words = {program_path()};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const std::string in = folder_ / "in", out = folder_ / "out", err = folder_ / "err";

  child_ = ::fork();
  if (child_ < 0) throw std::runtime_error(std::string("fork: ") + std::strerror(errno));
  if (child_ == 0) {
    if (setting.own_group) ::setpgid(0, 0);
    if (setting.beside != 0 && !join_namespaces(setting.beside)) ::_exit(127);
    for (const auto& [name, value] : setting.environment) ::setenv(name.c_str(), value.c_str(), 1);
    const int files[] = {::open(in.c_str(), O_RDONLY), ::open(out.c_str(), O_WRONLY | O_CREAT, 0600),
                         ::open(err.c_str(), O_WRONLY | O_CREAT, 0600)};
    for (int fd = 0; fd < 3; ++fd) ::dup2(files[fd], fd);
    if (setting.address_space_bytes > 0) {
      const rlimit limit{setting.address_space_bytes, setting.address_space_bytes};
      ::setrlimit(RLIMIT_AS, &limit);
    }
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
}

Program::~Program() {
  if (!running()) return;
  send(SIGKILL);
  ::waitpid(child_, &status_, 0);
}

void Program::send(int signal) const { ::kill(child_, signal); }
void Program::send_to_group(int signal) const { ::kill(-child_, signal); }

bool Program::running() {
  if (ended_) return false;
  const pid_t found = ::waitpid(child_, &status_, WNOHANG);
  ended_ = found == child_;
  return !ended_;
}

ProgramResult Program::wait() {
  while (!ended_ && ::waitpid(child_, &status_, 0) < 0) {
    if (errno != EINTR) throw std::runtime_error(std::string("waitpid: ") + std::strerror(errno));
  }
  ended_ = true;
  ProgramResult result;
  result.exit_code = WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_);
  if (result.exit_code == 127) throw std::runtime_error(program_path() + ": cannot be started");
  result.out = read_file(folder_ / "out");
  result.err = read_file(folder_ / "err");
  return result;
}

ProgramResult run_program(const std::vector<std::string>& arguments, const std::string& input,
                          const std::map<std::string, std::string>& environment) {
  return Program(arguments, {.input = input, .environment = environment}).wait();
}

}  // namespace nanochat::testing
