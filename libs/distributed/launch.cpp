#include "distributed/launch.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/log.h"
#include "distributed/failure.h"
#include "distributed/store.h"

namespace nanochat {
namespace {

using distributed::Clock;
using distributed::Milliseconds;

std::string system_error() { return std::strerror(errno); }

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { reset(); }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  int get() const { return fd_; }
  void reset() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  int fd_ = -1;
};

// While it lives, signals wait to be read instead of interrupting.
class Signals {
 public:
  Signals() {
    sigset_t set;
    sigemptyset(&set);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGCHLD}) {
      struct sigaction action {};
      ::sigaction(signal, nullptr, &action);
      if (action.sa_handler != SIG_IGN || signal == SIGCHLD) sigaddset(&set, signal);  // nohup's stays ignored
    }
    ::pthread_sigmask(SIG_BLOCK, &set, &before_);
    fd_ = Descriptor(::signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
    if (fd_.get() < 0) throw IoError("signals cannot be read: " + system_error());
  }
  ~Signals() {
    while (next()) {  // a second Ctrl-C is not to end what comes after
    }
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  int fd() const { return fd_.get(); }
  const sigset_t& before() const { return before_; }
  std::optional<int> next() {
    signalfd_siginfo info{};
    if (::read(fd_.get(), &info, sizeof info) != static_cast<ssize_t>(sizeof info)) return std::nullopt;
    return static_cast<int>(info.ssi_signo);
  }

 private:
  sigset_t before_{};
  Descriptor fd_;
};

struct Process {
  int rank = 0;
  pid_t id = -1;
  bool running = false;
  Descriptor output;  // read end, where its lines are relayed
  std::string line;   // not yet ended
};

class Launcher {
 public:
  Launcher(const LaunchOptions& options, const std::function<void(std::string_view)>& relay)
      : options_(options), relay_(relay) {
    if (options_.node_rank != 0) return;
    const bool everywhere = options_.nodes > 1 && distributed::is_host_name(options_.master_addr);
    server_.emplace(options_.master_addr, options_.master_port, everywhere,
                    distributed::Said{"--master-addr", "--master-port"});
    options_.master_port = server_->port();
  }

  ~Launcher() {  // what an exception has left
    for (const Process& process : processes_) {
      if (!process.running) continue;
      ::kill(-process.id, SIGKILL);
      ::waitpid(process.id, nullptr, 0);
    }
  }
  Launcher(const Launcher&) = delete;
  Launcher& operator=(const Launcher&) = delete;

  // One attempt, to its end.
  int run(const std::vector<std::string>& command, int attempt) {
    processes_.clear();
    first_failure_.reset();
    kill_at_.reset();
    for (int local = 0; local < options_.processes; ++local) processes_.push_back(start(command, local, attempt));
    while (running() > 0) {
      wait_for_events();
      while (const auto signal = signals_.next()) take(*signal, attempt);
      for (Process& process : processes_) relay_output(process);
      if (kill_at_ && Clock::now() >= *kill_at_) {
        kill_at_.reset();
        for (const Process& process : processes_) {
          if (!process.running) continue;
          log_warn("rank {} (process {}) did not end within {:g} s; it is killed", process.rank, process.id,
                   options_.grace_seconds);
          ::kill(-process.id, SIGKILL);
        }
      }
    }
    for (Process& process : processes_) {
      relay_output(process);
      if (!process.line.empty()) relay_(prefix(process) + std::exchange(process.line, ""));
    }
    return first_failure_.value_or(0);
  }

  bool interrupted() const { return interrupted_; }

  // The other machines' processes may still need the store.
  void leave() {
    if (options_.nodes == 1) return;
    try {
      distributed::StoreClient store(options_.master_addr, options_.master_port, Clock::now() + Milliseconds(2000));
      store.set_limit(Milliseconds(2000));
      const std::int64_t left = store.add("launchers left", 1);
      if (left == options_.nodes) {
        store.set("all launchers left", "yes");
      } else if (server_) {
        store.wait("all launchers left", Milliseconds(10'000));
      }
    } catch (const std::exception&) {  // the first machine's launcher is gone
    }
  }

 private:
  static std::string prefix(const Process& process) { return fmt::format("[rank {}] ", process.rank); }

  std::int64_t running() const {
    std::int64_t count = 0;
    for (const Process& process : processes_) count += process.running ? 1 : 0;
    return count;
  }

  std::vector<std::string> environment(int local, int rank, int attempt) const {
    std::map<std::string, std::string> variables;
    for (char** one = environ; *one != nullptr; ++one) {
      const std::string text = *one;
      const std::size_t equals = text.find('=');
      if (equals != std::string::npos) variables[text.substr(0, equals)] = text.substr(equals + 1);
    }
    variables["RANK"] = std::to_string(rank);
    variables["WORLD_SIZE"] = std::to_string(options_.nodes * options_.processes);
    variables["LOCAL_RANK"] = std::to_string(local);
    variables["LOCAL_WORLD_SIZE"] = std::to_string(options_.processes);
    variables["MASTER_ADDR"] = options_.master_addr;
    variables["MASTER_PORT"] = std::to_string(options_.master_port);
    variables["TORCHELASTIC_USE_AGENT_STORE"] = "True";  // torchrun's names for these two
    variables["TORCHELASTIC_RESTART_COUNT"] = std::to_string(attempt);
    std::vector<std::string> texts;
    for (const auto& [name, value] : variables) texts.push_back(name + "=" + value);
    return texts;
  }

  Process start(const std::vector<std::string>& command, int local, int attempt) {
    Process process;
    process.rank = options_.node_rank * options_.processes + local;
    Descriptor write_end, input;
    if (process.rank != 0) {
      if (options_.log_dir.empty()) {
        std::array<int, 2> ends{};
        if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw IoError("a pipe cannot be made: " + system_error());
        process.output = Descriptor(ends[0]);
        write_end = Descriptor(ends[1]);
        ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
      } else {
        const std::filesystem::path file = options_.log_dir / fmt::format("rank-{}.log", process.rank);
        write_end = Descriptor(::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
        if (write_end.get() < 0) throw IoError(fmt::format("{}: cannot be opened: {}", file.string(), system_error()));
      }
    }
    // In a process group of its own a terminal's signals do not reach it twice, and it could not read from a
    // terminal.
    if (process.rank != 0 || ::isatty(STDIN_FILENO) == 1) input = Descriptor(::open("/dev/null", O_RDONLY | O_CLOEXEC));

    std::vector<std::string> words = command, variables = environment(local, process.rank, attempt);
    const auto pointers = [](std::vector<std::string>& texts) {
      std::vector<char*> list;
      for (std::string& text : texts) list.push_back(text.data());
      list.push_back(nullptr);
      return list;
    };
    const std::vector<char*> argv = pointers(words), envp = pointers(variables);
    const pid_t parent = ::getpid();
    process.id = ::fork();
    if (process.id < 0) throw IoError("a process cannot be started: " + system_error());
    if (process.id == 0) {
      // Nothing here but calls that are allowed between fork and exec where there are threads.
      ::setpgid(0, 0);
      ::prctl(PR_SET_PDEATHSIG, SIGTERM);  // it saves and ends when the launcher is killed
      if (::getppid() != parent) ::_exit(1);
      if (input.get() >= 0) ::dup2(input.get(), STDIN_FILENO);
      if (write_end.get() >= 0) {
        ::dup2(write_end.get(), STDOUT_FILENO);
        ::dup2(write_end.get(), STDERR_FILENO);
      }
      ::pthread_sigmask(SIG_SETMASK, &signals_.before(), nullptr);
      ::execve(argv[0], argv.data(), envp.data());
      ::_exit(127);
    }
    ::setpgid(process.id, process.id);  // whoever comes first
    process.running = true;
    return process;
  }

  void wait_for_events() {
    std::vector<pollfd> waiting{{.fd = signals_.fd(), .events = POLLIN, .revents = 0}};
    for (const Process& process : processes_) {
      if (process.output.get() >= 0) waiting.push_back({.fd = process.output.get(), .events = POLLIN, .revents = 0});
    }
    ::poll(waiting.data(), waiting.size(), kill_at_ ? 100 : 1000);
  }

  void take(int signal, int attempt) {
    if (signal == SIGCHLD) return reap(attempt);
    if (signal == SIGTSTP) {  // all stop together: whoever stops alone is taken for dead
      send_all(SIGSTOP);
      ::raise(SIGSTOP);
      return send_all(SIGCONT);
    }
    interrupted_ = true;
    send_all(signal);
  }

  void send_all(int signal) const {
    for (const Process& process : processes_) {
      if (process.running) ::kill(process.id, signal);
    }
  }

  void reap(int attempt) {
    for (Process& process : processes_) {
      int status = 0;
      if (!process.running || ::waitpid(process.id, &status, WNOHANG) != process.id) continue;
      process.running = false;
      const bool killed = WIFSIGNALED(status);
      const int code = killed ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
      if (code == 0 || first_failure_) continue;
      first_failure_ = code;
      const std::string how = killed
                                  ? fmt::format("was ended by signal {} ({})", WTERMSIG(status), ::strsignal(WTERMSIG(status)))
                                  : fmt::format("ended with exit code {}", code);
      const std::string message = fmt::format("rank {} ({}, process {}) {}", process.rank, distributed::host_name(), process.id,
                                              how);
      if (interrupted_ && killed) {  // by what was handed on to it
        log_warn("{}", message);
        continue;
      }
      log_error("{}", message);
      // What the process itself said to the others stands; where it had no time to, this does.
      tell(attempt, {.code = killed ? ExitCode::kOther : static_cast<ExitCode>(code), .message = message});
      send_all(SIGTERM);
      kill_at_ = Clock::now() + Milliseconds(static_cast<std::int64_t>(options_.grace_seconds * 1e3));
    }
  }

  void tell(int attempt, const distributed::Verdict& verdict) const {
    if (options_.nodes * options_.processes == 1) return;
    try {
      distributed::StoreClient store(options_.master_addr, options_.master_port, Clock::now() + Milliseconds(2000));
      store.set_limit(Milliseconds(2000));
      store.set_prefix(fmt::format("nanochat/{}", attempt));
      store.set_once("verdict", verdict.to_text());
    } catch (const std::exception& error) {
      log_debug("the other ranks could not be told: {}", error.what());
    }
  }

  void relay_output(Process& process) {
    std::array<char, 4096> buffer{};
    while (process.output.get() >= 0) {
      const ssize_t count = ::read(process.output.get(), buffer.data(), buffer.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return;  // nothing more now
      if (count == 0) return process.output.reset();
      process.line.append(buffer.data(), static_cast<std::size_t>(count));
      for (std::size_t end = process.line.find('\n'); end != std::string::npos; end = process.line.find('\n')) {
        relay_(prefix(process) + process.line.substr(0, end));
        process.line.erase(0, end + 1);
      }
    }
  }

  LaunchOptions options_;
  const std::function<void(std::string_view)>& relay_;
  Signals signals_;  // before the store, whose threads must not take them
  std::optional<distributed::StoreServer> server_;
  std::vector<Process> processes_;
  std::optional<int> first_failure_;
  std::optional<Clock::time_point> kill_at_;
  bool interrupted_ = false;
};

}  // namespace

int launch(const LaunchOptions& options, const std::vector<std::string>& command, const std::vector<std::string>& resume,
           const std::function<void(std::string_view)>& relay) {
  if (!options.log_dir.empty()) std::filesystem::create_directories(options.log_dir);
  Launcher launcher(options, relay);
  std::vector<std::string> words = command;
  for (int attempt = 0;; ++attempt) {
    const int code = launcher.run(words, attempt);
    const bool wrong_usage = code == static_cast<int>(ExitCode::kUsage);  // it would be as wrong again
    if (code == 0 || launcher.interrupted() || wrong_usage || attempt == options.max_restarts) {
      launcher.leave();
      return code;
    }
    log_warn("restart {} of {}, from the last checkpoint", attempt + 1, options.max_restarts);
    if (attempt == 0) words.insert(words.end(), resume.begin(), resume.end());
  }
}

}  // namespace nanochat
