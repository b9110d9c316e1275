#include "machines.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <stdexcept>

#include "program.h"

namespace nanochat::testing {
namespace {

bool write_line(const std::string& path, const std::string& line) {
  return static_cast<bool>(std::ofstream(path) << line << std::flush);
}

// Namespaces for the calling process.
bool enter_own_namespaces(const std::string& name, pid_t same_user_namespace) {
  const uid_t user = ::geteuid();
  const gid_t group = ::getegid();
  if (same_user_namespace != 0 && user != 0) {
    const std::string path = "/proc/" + std::to_string(same_user_namespace) + "/ns/user";
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0 || ::setns(fd, CLONE_NEWUSER) != 0) return false;
    ::close(fd);
  } else if (user != 0) {
    if (::unshare(CLONE_NEWUSER) != 0 || !write_line("/proc/self/setgroups", "deny") ||
        !write_line("/proc/self/uid_map", "0 " + std::to_string(user) + " 1") ||
        !write_line("/proc/self/gid_map", "0 " + std::to_string(group) + " 1")) {
      return false;
    }
  }
  return ::unshare(CLONE_NEWNET | CLONE_NEWUTS) == 0 && ::sethostname(name.c_str(), name.size()) == 0;
}

}  // namespace

Machine::Machine(const std::string& name, pid_t same_user_namespace) {
  int ready[2];
  if (::pipe2(ready, O_CLOEXEC) != 0) throw std::runtime_error("pipe2 failed");
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("fork failed");
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::close(ready[0]);
    if (!enter_own_namespaces(name, same_user_namespace)) ::_exit(1);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // a change of user clears it
    if (::write(ready[1], "y", 1) != 1) ::_exit(1);
    ::close(ready[1]);
    while (true) ::pause();
  }
  ::close(ready[1]);
  char answer = 0;
  const bool well = ::read(ready[0], &answer, 1) == 1;
  ::close(ready[0]);
  if (well) {
    holder_ = child;
  } else {
    ::waitpid(child, nullptr, 0);
  }
}

Machine::~Machine() {
  if (holder_ <= 0) return;
  ::kill(holder_, SIGKILL);
  ::waitpid(holder_, nullptr, 0);
}

int Machine::run(const std::vector<std::string>& words) const {
  std::vector<std::string> owned = words;
  std::vector<char*> argv;
  for (std::string& word : owned) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("fork failed");
  if (child == 0) {
    if (!join_namespaces(holder_)) ::_exit(126);
    ::execvp(argv[0], argv.data());
    ::_exit(127);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

TwoMachines::TwoMachines() : first_("machine-0", 0), second_("machine-1", first_.holder()) {
  if (!first_.works() || !second_.works()) {
    missing_ = "this system does not allow network namespaces";
    return;
  }
  const auto set_up = [&](std::size_t machine, const std::vector<std::string>& words) {
    if (!missing_.empty()) return;
    std::vector<std::string> command = {"ip"};
    command.insert(command.end(), words.begin(), words.end());
    if (const int code = (*this)[machine].run(command); code != 0) {
      missing_ = code == 127 ? "the program `ip` (iproute2) is not installed" : "this system does not allow virtual networks";
    }
  };
  set_up(0, {"link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", std::to_string(second_.holder())});
  for (const std::size_t machine : {0U, 1U}) {
    set_up(machine, {"address", "add", std::string(address(machine)) + "/24", "dev", "cable"});
    set_up(machine, {"link", "set", "lo", "up"});
    set_up(machine, {"link", "set", "cable", "up"});
  }
}

void TwoMachines::set_cable(bool connected) const {
  if (second_.run({"ip", "link", "set", "cable", connected ? "up" : "down"}) != 0) {
    throw std::runtime_error("the cable cannot be moved");
  }
}

std::int64_t TwoMachines::bytes_sent() const {
  std::ifstream file("/proc/" + std::to_string(first_.holder()) + "/net/dev");
  for (std::string name; file >> name;) {
    if (name != "cable:") continue;
    std::int64_t received = 0, sent = 0, skipped = 0;
    file >> received;
    for (int i = 0; i < 7; ++i) file >> skipped;
    file >> sent;
    return received + sent;
  }
  throw std::runtime_error("the cable is not listed in net/dev");
}

}  // namespace nanochat::testing
