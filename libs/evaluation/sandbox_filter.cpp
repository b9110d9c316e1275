#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <iterator>

#include "evaluation/internal/sandbox_child.h"

namespace nanochat::sandbox {
namespace {

#if defined(__x86_64__)
constexpr unsigned kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr unsigned kArchitecture = AUDIT_ARCH_AARCH64;
#else
#error "the sandbox's system-call filter knows x86-64 and aarch64"
#endif

constexpr unsigned kX32Bit = 0x40000000;  // the other numbering of x86-64

// Refused with EPERM: other processes, namespaces and mounts, sockets, keys, tracing, the kernel's own affairs.
// clang-format off: one call a line would be a hundred lines.
constexpr unsigned kRefused[] = {
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_kcmp,
    SYS_pidfd_getfd,
    SYS_pidfd_open,
    SYS_pidfd_send_signal,
    SYS_unshare,
    SYS_setns,
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_move_mount,
    SYS_open_tree,
    SYS_fsopen,
    SYS_fsmount,
    SYS_fsconfig,
    SYS_fspick,
    SYS_mount_setattr,
    SYS_socket,
    SYS_socketpair,
    SYS_bind,
    SYS_connect,
    SYS_listen,
    SYS_accept,
    SYS_accept4,
    SYS_sendto,
    SYS_sendmsg,
    SYS_sendmmsg,
    SYS_add_key,
    SYS_request_key,
    SYS_keyctl,
    SYS_bpf,
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    SYS_reboot,
    SYS_swapon,
    SYS_swapoff,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_clock_adjtime,
    SYS_adjtimex,
    SYS_acct,
    SYS_quotactl,
    SYS_syslog,
    SYS_mknodat,
    SYS_name_to_handle_at,
    SYS_open_by_handle_at,
    SYS_personality,
    SYS_mbind,
    SYS_set_mempolicy,
    SYS_migrate_pages,
    SYS_move_pages,
    SYS_fanotify_init,
    SYS_memfd_create,
    SYS_memfd_secret,
    SYS_shmget,
    SYS_msgget,
    SYS_semget,
    SYS_mq_open,
    SYS_tkill,
    SYS_setpriority,
    SYS_ioprio_set,
    SYS_sched_setscheduler,
    SYS_sched_setparam,
    SYS_sched_setattr,
    SYS_sched_setaffinity,
#if defined(__x86_64__)
    SYS_fork,
    SYS_vfork,
    SYS_mknod,
    SYS_ioperm,
    SYS_iopl,
    SYS_modify_ldt,
    SYS_uselib,
    SYS_kexec_file_load,
#endif
};
// clang-format on

// Calls whose first argument names a process: the program may name itself alone.
struct ProcessCall {
  unsigned number;
  bool by_zero;  // 0 means the caller; where it does not, it may mean a whole group
};
constexpr ProcessCall kOnSelf[] = {
    {SYS_kill, false}, {SYS_tgkill, false}, {SYS_rt_sigqueueinfo, false}, {SYS_rt_tgsigqueueinfo, false}, {SYS_prlimit64, true},
};

constexpr std::size_t kPrologue = 6, kEpilogue = 8;

}  // namespace

bool install_filter() {
  sock_filter filter[kPrologue + 2 * std::size(kRefused) + 5 * std::size(kOnSelf) + kEpilogue];
  const auto self = static_cast<unsigned>(::getpid());
  std::size_t n = 0;
  const auto add = [&](sock_filter instruction) { filter[n++] = instruction; };
  const auto load = [&](std::size_t offset) { add(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<unsigned>(offset))); };
  const auto answer = [&](unsigned action) { add(BPF_STMT(BPF_RET | BPF_K, action)); };
  const auto refuse = [&](int error) { answer(SECCOMP_RET_ERRNO | static_cast<unsigned>(error)); };

  load(offsetof(seccomp_data, arch));
  add(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 1, 0));
  answer(SECCOMP_RET_KILL_PROCESS);
  load(offsetof(seccomp_data, nr));
  add(BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, kX32Bit, 0, 1));
  answer(SECCOMP_RET_KILL_PROCESS);
  for (const unsigned call : kRefused) {
    add(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1));
    refuse(EPERM);
  }
  for (const auto& [call, by_zero] : kOnSelf) {
    add(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 4));
    load(offsetof(seccomp_data, args[0]));
    add(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, by_zero ? 0 : self, 1, 0));
    refuse(EPERM);
    answer(SECCOMP_RET_ALLOW);
  }
  // A thread is no new process. clone3 hides its flags behind a pointer: without it, C libraries fall back to clone.
  add(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1));
  refuse(ENOSYS);
  add(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 3));
  load(offsetof(seccomp_data, args[0]));
  add(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 1, 0));
  refuse(EPERM);
  answer(SECCOMP_RET_ALLOW);
  const sock_fprog program{static_cast<unsigned short>(n), filter};
  return ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

}  // namespace nanochat::sandbox
