#include "evaluation/internal/sandbox_child.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>

namespace nanochat::sandbox {
namespace {

class Child {
 public:
  explicit Child(const Plan& plan) : plan_(plan), report_(plan.report) {}

  [[noreturn]] void run() {
    check(::setsid() >= 0, Stage::kSession);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    reset_signals();
    wait_for_go();
    if (plan_.namespaces) build_root();
    check(::chdir(plan_.namespaces ? "/tmp" : plan_.root.c_str()) == 0, Stage::kPivot);
    take_identity();
    const pid_t program = static_cast<pid_t>(::syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, nullptr));
    check(program >= 0, Stage::kExec);
    if (program == 0) start_program();
    wait_for(program);
  }

 private:
  void tell(const Report& report) const {
    if (::write(report_, &report, sizeof report) != static_cast<ssize_t>(sizeof report)) ::_exit(1);
  }
  void check(bool good, Stage stage) const {
    if (good) return;
    tell({stage, errno, 0});
    ::_exit(1);
  }

  static void reset_signals() {
    for (int number = 1; number < NSIG; ++number) ::signal(number, SIG_DFL);
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
  }

  // Until the parent has mapped this process's user, it has none.
  void wait_for_go() const {
    char byte = 0;
    check(::read(plan_.go, &byte, 1) == 1, Stage::kGo);
  }

  static std::size_t length(const char* text) {
    std::size_t n = 0;
    while (text[n] != '\0') ++n;
    return n;
  }

  // Read-only, with every mount below. The flags that the source has must stay: they may be locked.
  static bool make_read_only(const char* path) {
    struct {
      std::uint64_t set, clear, propagation, user;
    } attributes{1 /* MOUNT_ATTR_RDONLY */ | 2 /* NOSUID */, 0, 0, 0};
    constexpr int kRecursive = 0x8000;
    if (::syscall(SYS_mount_setattr, AT_FDCWD, path, kRecursive, &attributes, sizeof attributes) == 0) return true;
    struct statvfs now {};
    if (::statvfs(path, &now) != 0) return false;
    unsigned long flags = MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID;
    if ((now.f_flag & ST_NODEV) != 0) flags |= MS_NODEV;
    if ((now.f_flag & ST_NOEXEC) != 0) flags |= MS_NOEXEC;
    if ((now.f_flag & ST_NOATIME) != 0) flags |= MS_NOATIME;
    if ((now.f_flag & ST_NODIRATIME) != 0) flags |= MS_NODIRATIME;
    if ((now.f_flag & ST_RELATIME) != 0) flags |= MS_RELATIME;
    return ::mount(nullptr, path, nullptr, flags, nullptr) == 0;
  }

  void build_root() const {
    const char* root = plan_.root.c_str();
    check(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0, Stage::kMount);
    check(::mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, plan_.tmpfs_options.c_str()) == 0, Stage::kTmpfs);
    for (const std::string& folder : plan_.folders) {
      check(::mkdir(folder.c_str(), 0755) == 0 || errno == EEXIST, Stage::kTmpfs);
    }
    for (const auto& [target, path] : plan_.links) {
      check(::symlink(target.c_str(), path.c_str()) == 0 || errno == EEXIST, Stage::kTmpfs);
    }
    for (const Mount& mount : plan_.mounts) {
      if (!mount.folder) {
        const int file = ::open(mount.target.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        check(file >= 0, Stage::kBind);
        ::close(file);
      }
      check(::mount(mount.source.c_str(), mount.target.c_str(), nullptr, MS_BIND | MS_REC, nullptr) == 0, Stage::kBind);
      check(make_read_only(mount.target.c_str()), Stage::kReadOnly);
    }
    check(::chdir(root) == 0, Stage::kPivot);
    check(::mount("tmpfs", "tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, plan_.tmp_options.c_str()) == 0, Stage::kTmpfs);
    write_program("tmp/program.py");
    check(::syscall(SYS_pivot_root, ".", ".") == 0, Stage::kPivot);
    check(::umount2(".", MNT_DETACH) == 0, Stage::kPivot);
    check(::mount(nullptr, "/", nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, nullptr) == 0,
          Stage::kReadOnly);
  }

  void write_program(const char* path) const {
    const int file = ::open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    check(file >= 0, Stage::kProgram);
    const char* from = plan_.program->data();
    for (std::size_t left = plan_.program->size(); left > 0;) {
      const ssize_t written = ::write(file, from, left);
      check(written > 0, Stage::kProgram);
      from += written;
      left -= static_cast<std::size_t>(written);
    }
    ::close(file);
  }

  // Nobody, and never again anybody else. Raw system calls: the C library's would ask every thread of the parent.
  void take_identity() const {
    if (plan_.drop_to_nobody && ::geteuid() == 0) {
      check(::syscall(SYS_setgroups, 0, nullptr) == 0, Stage::kIdentity);
      check(::syscall(SYS_setresgid, kNobody, kNobody, kNobody) == 0, Stage::kIdentity);
      check(::syscall(SYS_setresuid, kNobody, kNobody, kNobody) == 0, Stage::kIdentity);
    }
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct none[2]{};
    check(::syscall(SYS_capset, &header, none) == 0, Stage::kIdentity);
    check(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, Stage::kIdentity);
    ::prctl(PR_SET_DUMPABLE, 0);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // a change of the user clears it
  }

  void limit(unsigned resource, std::uint64_t most) const {
    const rlimit both{most, most};
    check(::setrlimit(static_cast<__rlimit_resource>(resource), &both) == 0, Stage::kLimits);
  }

  [[noreturn]] void start_program() {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    check(::dup2(plan_.standard_input, 0) == 0 && ::dup2(plan_.standard_output, 1) == 1 && ::dup2(plan_.standard_error, 2) == 2,
          Stage::kExec);
    // Above the three, the report alone stays open, until exec.
    check(::dup2(plan_.report, 3) == 3 && ::fcntl(3, F_SETFD, FD_CLOEXEC) == 0, Stage::kExec);
    report_ = 3;
    check(::syscall(SYS_close_range, 4U, ~0U, 0U) == 0, Stage::kExec);
    const SandboxLimits& limits = plan_.limits;
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_AS, limits.memory_bytes);
    limit(RLIMIT_CPU, static_cast<std::uint64_t>(limits.wall_seconds) + 2);
    limit(RLIMIT_FSIZE, limits.tmp_bytes);
    limit(RLIMIT_NOFILE, 64);
    limit(RLIMIT_NPROC, limits.processes);
    if (plan_.seccomp) check(install_filter(), Stage::kFilter);
    ::execve(plan_.arguments.front(), plan_.arguments.data(), plan_.environment.data());
    check(false, Stage::kExec);
    ::_exit(1);
  }

  // Waits as the namespace's first process must: for every orphan too. Its own end takes whoever is left along.
  [[noreturn]] void wait_for(pid_t program) const {
    ::close(plan_.standard_output);
    ::close(plan_.standard_error);
    tell({Stage::kReady, 0, 0});
    int status = 0;
    for (;;) {
      const pid_t ended = static_cast<pid_t>(::wait4(-1, &status, 0, nullptr));
      if (ended == program) break;
      if (ended < 0 && errno != EINTR) ::_exit(1);
    }
    tell({Stage::kReady, 0, status});
    ::_exit(0);
  }

  const Plan& plan_;
  int report_;
};

}  // namespace

const char* describe(Stage stage) {
  switch (stage) {
    case Stage::kReady: return "ready";
    case Stage::kGo: return "waiting for the parent";
    case Stage::kMount: return "making mounts private";
    case Stage::kTmpfs: return "making a private root";
    case Stage::kBind: return "showing the interpreter's folders";
    case Stage::kReadOnly: return "making folders read-only";
    case Stage::kPivot: return "changing the root";
    case Stage::kProgram: return "writing the program";
    case Stage::kIdentity: return "giving up privileges";
    case Stage::kSession: return "beginning a session";
    case Stage::kFilter: return "installing the system-call filter";
    case Stage::kLimits: return "setting limits";
    case Stage::kExec: return "starting the interpreter";
  }
  return "setting up";
}

void run_init(const Plan& plan) { Child(plan).run(); }

}  // namespace nanochat::sandbox
