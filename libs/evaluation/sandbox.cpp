#include "evaluation/sandbox.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <set>

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "evaluation/internal/sandbox_child.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using sandbox::Plan;
using sandbox::Report;
using sandbox::Stage;

constexpr std::size_t kKeptOutput = std::size_t{64} << 10;

// As exec(program, {}) in the reference; an exit by the program itself is no success. 42 is sandbox::kFinished.
constexpr const char* kDriver =
    "import os, sys\n"
    "with open(sys.argv[1], encoding='utf-8', errors='replace') as f: code = f.read()\n"
    "try:\n"
    "    exec(compile(code, 'program.py', 'exec'), {})\n"
    "except BaseException as e:\n"
    "    try: sys.stdout.flush()\n"
    "    except BaseException: pass\n"
    "    print(f'{type(e).__name__}: {e}', file=sys.stderr, flush=True)\n"
    "    os._exit(43 if isinstance(e, MemoryError) else 1)\n"
    "sys.stdout.flush()\n"
    "os._exit(42)\n";
constexpr int kOutOfMemory = 43;

class File {  // a descriptor that is closed
 public:
  explicit File(int fd = -1) : fd_(fd) {}
  ~File() { reset(); }
  File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  File& operator=(File&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  int get() const { return fd_; }
  void reset() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  int fd_;
};

struct Pipe {
  File read, write;
  Pipe() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) throw IoError(fmt::format("sandbox: no pipe: {}", std::strerror(errno)));
    read = File(ends[0]);
    write = File(ends[1]);
  }
};

// An empty folder of its own, away at the end of scope.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::string pattern = (fs::temp_directory_path() / "nanochat-sandbox-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) {
      throw IoError(fmt::format("sandbox: {}: {}", pattern, std::strerror(errno)));
    }
    path_ = pattern;
  }
  ~ScratchFolder() {
    std::error_code error;
    fs::remove_all(path_, error);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

bool write_proc(pid_t child, const char* name, const std::string& text) {
  const File file(::open(fmt::format("/proc/{}/{}", child, name).c_str(), O_WRONLY | O_CLOEXEC));
  return file.get() >= 0 && ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

// Root keeps itself while the root is built, and is nobody after that. Anybody else is nobody from the beginning; so is
// the root of a container that has no other user to become.
bool map_user(pid_t child) {
  if (::geteuid() == 0) {
    const std::string both = fmt::format("0 0 1\n{0} {0} 1\n", sandbox::kNobody);
    if (write_proc(child, "uid_map", both)) return write_proc(child, "gid_map", both);
  }
  return write_proc(child, "setgroups", "deny") &&
         write_proc(child, "uid_map", fmt::format("{} {} 1\n", sandbox::kNobody, ::geteuid())) &&
         write_proc(child, "gid_map", fmt::format("{} {} 1\n", sandbox::kNobody, ::getegid()));
}

void plan_root(Plan& plan, const PythonInterpreter& python) {
  std::set<std::string> folders;
  const auto parents_of = [&](const fs::path& path) {
    fs::path walked = plan.root;
    for (const fs::path& part : path.parent_path().relative_path()) folders.insert((walked /= part).string());
  };
  for (const fs::path& path : python.needed) {
    parents_of(path);
    const bool folder = fs::is_directory(path);
    const std::string target = plan.root + path.string();
    if (folder) folders.insert(target);
    plan.mounts.push_back({path.string(), target, folder});
  }
  for (const auto& [path, target] : python.links) {
    parents_of(path);
    plan.links.emplace_back(target.string(), plan.root + path.string());
  }
  folders.insert(plan.root + "/tmp");
  plan.folders.assign(folders.begin(), folders.end());  // a parent sorts before what is in it
}

void append_kept(std::string& kept, const char* text, std::size_t bytes) {
  if (kept.size() < kKeptOutput) kept.append(text, std::min(bytes, kKeptOutput - kept.size()));
}

std::string last_line(const std::string& text) {
  const std::size_t end = text.find_last_not_of("\n ");
  if (end == std::string::npos) return "";
  const std::size_t begin = text.find_last_of('\n', end);
  return text.substr(begin == std::string::npos ? 0 : begin + 1,
                     std::min<std::size_t>(200, end - (begin == std::string::npos ? -1UL : begin)));
}

// How a program is held.
struct Hold {
  int namespaces = 0;  // CLONE_NEW…
  bool seccomp = false;
  bool drop_to_nobody = true;  // where this process is root
};

// How far a run came; `stage` is where setting up failed. `lost`: the process that sets up and watches is gone.
struct Outcome {
  bool started = false, ended = false, lost = false;
  Stage stage = Stage::kReady;
  int error = 0, status = 0;
};

// A plan and the strings that it points into.
struct PreparedPlan {
  Plan plan;
  std::vector<std::string> words, environment;
};

// What a run and the process that it starts say to each other.
struct Channels {
  Pipe go, report, output, errors;
  File nothing;  // the program's standard input

  Channels() : nothing(::open("/dev/null", O_RDONLY | O_CLOEXEC)) {
    if (nothing.get() < 0) throw IoError(fmt::format("sandbox: /dev/null: {}", std::strerror(errno)));
  }
  void give_to(Plan& plan) const {
    plan.go = go.read.get();
    plan.report = report.write.get();
    plan.standard_input = nothing.get();
    plan.standard_output = output.write.get();
    plan.standard_error = errors.write.get();
  }
  // The ends that are the child's alone, so that the others see its end.
  void close_childs_ends() {
    go.read.reset();
    report.write.reset();
    output.write.reset();
    errors.write.reset();
  }
};

// Appends what has come of the program's output to `result`; returns how many bytes.
std::size_t read_output(Channels& channels, const pollfd (&waiting)[3], SandboxResult& result) {
  std::size_t bytes = 0;
  for (int i = 0; i < 2; ++i) {
    if ((waiting[i].revents & (POLLIN | POLLHUP)) == 0) continue;
    char buffer[1 << 16];
    const ssize_t got = ::read(waiting[i].fd, buffer, sizeof buffer);
    if (got <= 0) {
      (i == 0 ? channels.output : channels.errors).read.reset();  // poll passes over what is closed
      continue;
    }
    bytes += static_cast<std::size_t>(got);
    append_kept(i == 0 ? result.standard_output : result.standard_error, buffer, static_cast<std::size_t>(got));
  }
  return bytes;
}

void read_report(const Channels& channels, Outcome& outcome) {
  Report now;
  if (::read(channels.report.read.get(), &now, sizeof now) != static_cast<ssize_t>(sizeof now)) {
    outcome.lost = true;
    return;
  }
  outcome.error = now.error;
  if (now.stage != Stage::kReady) {
    outcome.stage = now.stage;
  } else if (outcome.started) {
    outcome.status = now.status;
    outcome.ended = true;
  } else {
    outcome.started = true;
  }
}

// Collects output and reports until the program has ended, failed to start, or used up its time or output.
void watch(Channels& channels, const SandboxLimits& limits, SandboxResult& result, Outcome& outcome) {
  std::size_t written = 0;
  const auto deadline = Clock::now() + std::chrono::duration<double>(limits.wall_seconds);
  while (!outcome.ended && !outcome.lost && outcome.stage == Stage::kReady) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) {
      result.timed_out = true;
      return;
    }
    pollfd waiting[3] = {{channels.output.read.get(), POLLIN, 0},
                         {channels.errors.read.get(), POLLIN, 0},
                         {channels.report.read.get(), POLLIN, 0}};
    if (::poll(waiting, 3, static_cast<int>(left)) < 0 && errno != EINTR) return;
    const std::size_t got = read_output(channels, waiting, result);
    written += got;
    if (written > limits.output_bytes) {
      result.output_exceeded = true;
      return;
    }
    // What was written before the end comes first.
    if (got == 0 && (waiting[2].revents & (POLLIN | POLLHUP)) != 0) read_report(channels, outcome);
  }
}

// Ends and collects `child` and all that it started.
void stop(pid_t child, const Hold& how, bool ended) {
  // The namespace's first process takes all others along; without one, the session's process group is what there is.
  if (!ended) {
    ::kill(-child, SIGKILL);
    ::kill(child, SIGKILL);
  }
  while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  if ((how.namespaces & CLONE_NEWPID) == 0) ::kill(-child, SIGKILL);
}

// Fills in how the program ended. Throws IoError where it was never started.
void conclude(const Outcome& outcome, const SandboxLimits& limits, SandboxResult& result) {
  if (outcome.stage != Stage::kReady) {
    throw IoError(fmt::format("sandbox: {}: {}", sandbox::describe(outcome.stage), std::strerror(outcome.error)));
  }
  if (outcome.lost && !outcome.started) throw IoError("sandbox: the process ended before it could start the program");
  const bool exited = outcome.ended && WIFEXITED(outcome.status);
  const int code = exited ? WEXITSTATUS(outcome.status) : -1;
  result.success = code == sandbox::kFinished;
  result.memory_exceeded = code == kOutOfMemory;
  if (outcome.ended && WIFSIGNALED(outcome.status) && WTERMSIG(outcome.status) == SIGXCPU) result.timed_out = true;
  if (result.timed_out) {
    result.error = fmt::format("it ran longer than {} s", limits.wall_seconds);
  } else if (result.output_exceeded) {
    result.error = fmt::format("it printed more than {} bytes", limits.output_bytes);
  } else if (result.memory_exceeded) {
    result.error = fmt::format("it asked for more than {} bytes of memory", limits.memory_bytes);
  } else if (outcome.lost) {
    result.error = "it ended the process that watched it";
  } else if (!exited) {
    result.error = fmt::format("signal {}", WTERMSIG(outcome.status));
  } else if (!result.success) {
    result.error = last_line(result.standard_error);
    if (result.error.empty()) result.error = fmt::format("it ended with exit code {}", code);
  }
}

}  // namespace

struct Sandbox::Impl {
  SandboxLimits limits;
  PythonInterpreter python;
  SandboxProtections protections;
  Hold hold;  // the best that works here

  SandboxResult run(const std::string& program, const Hold& how) const;
  // Why an empty program does not run to its end; empty when it does.
  std::string failure(const Hold& how) const {
    try {
      return run("", how).error;
    } catch (const IoError& error) {
      return error.what();
    }
  }
  void find_protections();

 private:
  PreparedPlan prepare(const std::string& program, const Hold& how, const fs::path& scratch) const;
};

// `scratch`, an empty folder, and `program` must outlive the plan.
PreparedPlan Sandbox::Impl::prepare(const std::string& program, const Hold& how, const fs::path& scratch) const {
  PreparedPlan prepared;
  Plan& plan = prepared.plan;
  plan.namespaces = (how.namespaces & CLONE_NEWNS) != 0;
  plan.seccomp = how.seccomp;
  plan.drop_to_nobody = how.drop_to_nobody;
  plan.root = scratch.string();
  plan.tmpfs_options = "mode=755,size=1m,nr_inodes=2048";
  plan.tmp_options = fmt::format("mode=1777,size={},nr_inodes=1024", limits.tmp_bytes);
  plan.limits = limits;
  plan.program = &program;
  std::string path = "/tmp/program.py";
  if (plan.namespaces) {
    plan_root(plan, python);
  } else {
    path = (scratch / "program.py").string();
    write_file_atomically(path, program);
    fs::permissions(path, fs::perms::owner_all | fs::perms::others_read);
    if (how.drop_to_nobody && ::geteuid() == 0 && ::chown(plan.root.c_str(), sandbox::kNobody, sandbox::kNobody) != 0) {
      throw IoError(fmt::format("sandbox: {}: {}", plan.root, std::strerror(errno)));
    }
  }
  prepared.words = {python.executable.string(), "-I", "-S", "-B", "-c", kDriver, path};
  prepared.environment = {"PATH=/nonexistent", "HOME=/tmp", "TMPDIR=/tmp", "LANG=C.UTF-8", "OMP_NUM_THREADS=1"};
  for (std::string& word : prepared.words) plan.arguments.push_back(word.data());
  for (std::string& word : prepared.environment) plan.environment.push_back(word.data());
  plan.arguments.push_back(nullptr);
  plan.environment.push_back(nullptr);
  return prepared;
}

SandboxResult Sandbox::Impl::run(const std::string& program, const Hold& how) const {
  const ScratchFolder scratch;
  PreparedPlan prepared = prepare(program, how, scratch.path());
  Channels channels;
  channels.give_to(prepared.plan);

  // As fork() does, but into new namespaces. The child touches nothing but the plan.
  const auto child = static_cast<pid_t>(::syscall(SYS_clone, how.namespaces | SIGCHLD, nullptr, nullptr, nullptr, nullptr));
  if (child < 0) throw IoError(fmt::format("sandbox: no process can be started: {}", std::strerror(errno)));
  if (child == 0) sandbox::run_init(prepared.plan);
  channels.close_childs_ends();
  const bool mapped = (how.namespaces & CLONE_NEWUSER) == 0 || map_user(child);
  SandboxResult result;
  Outcome outcome;
  if (!mapped || ::write(channels.go.write.get(), "g", 1) != 1) {
    outcome.stage = Stage::kGo;
    outcome.error = errno;
  }
  channels.go.write.reset();
  watch(channels, limits, result, outcome);
  stop(child, how, outcome.ended);
  conclude(outcome, limits, result);
  return result;
}

void Sandbox::Impl::find_protections() {
  constexpr int kAll = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;
  const Hold from_best[] = {{kAll, true, true}, {kAll, false, true}, {0, true, true},
                            {0, false, true},   {0, true, false},    {0, false, false}};
  std::string failed;
  for (const Hold& candidate : from_best) {
    hold = candidate;
    failed = failure(candidate);
    if (failed.empty()) break;
    if (protections.missing.empty()) protections.missing = failed;
  }
  if (!failed.empty()) {
    throw ConfigError(fmt::format("{}: not even an empty program runs: {}", python.executable.string(), failed));
  }
  const bool isolated = hold.namespaces != 0;
  protections.user_namespace = protections.pid_namespace = isolated;
  protections.mount_namespace = protections.network_namespace = isolated;
  protections.seccomp = hold.seccomp;
  protections.unprivileged_uid = hold.drop_to_nobody || ::geteuid() != 0;
}

std::string SandboxProtections::describe() const {
  std::vector<std::string> active, absent;
  const auto list = [&](bool there, const char* name) { (there ? active : absent).emplace_back(name); };
  list(user_namespace, "user namespace");
  list(pid_namespace, "pid namespace");
  list(mount_namespace, "mount namespace");
  list(network_namespace, "network namespace");
  list(seccomp, "system-call filter");
  list(unprivileged_uid, "unprivileged user");
  list(limits, "limits of memory, time, processes and output");
  std::string text = fmt::format("active: {}", fmt::join(active, ", "));
  if (!absent.empty()) text += fmt::format("; missing: {}", fmt::join(absent, ", "));
  return missing.empty() ? text : fmt::format("{} ({})", text, missing);
}

Sandbox::Sandbox(bool allow_unsandboxed, const SandboxLimits& limits, const std::string& python) {
  auto impl = std::make_unique<Impl>();
  impl->limits = limits;
  const auto found = find_python(python);
  if (!found) throw ConfigError(fmt::format("{} is not found or does not answer; generated programs need a Python", python));
  impl->python = *found;
  impl->find_protections();
  if (!impl->protections.isolated() && !allow_unsandboxed) {
    throw ConfigError(
        fmt::format("programs that a model writes cannot be isolated here: {}; --allow-unsandboxed runs them "
                    "all the same",
                    impl->protections.describe()));
  }
  impl_ = std::move(impl);
}

Sandbox::~Sandbox() = default;
const SandboxProtections& Sandbox::protections() const { return impl_->protections; }
const PythonInterpreter& Sandbox::python() const { return impl_->python; }

SandboxResult Sandbox::run(const std::string& program) const { return impl_->run(program, impl_->hold); }

}  // namespace nanochat
