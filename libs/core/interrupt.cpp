#include "core/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

#include "core/errors.h"

namespace nanochat {
namespace {

std::atomic<bool> requested{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler may only touch lock-free atomics");

// A terminal that closes may send SIGHUP twice, once by the kernel and once by the shell: that is one request.
void handle(int signal) {
  if (requested.exchange(true) && signal != SIGHUP) ::_exit(static_cast<int>(ExitCode::kInterrupted));
}

}  // namespace

void install_interrupt_handlers() {
  struct sigaction action {};
  action.sa_handler = handle;
  sigemptyset(&action.sa_mask);
  // Reads in third-party code must not fail with EINTR; whoever waits for input polls, which is never restarted.
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  struct sigaction before {};
  const bool ignored = ::sigaction(SIGHUP, nullptr, &before) == 0 && before.sa_handler == SIG_IGN;  // by nohup
  if (!ignored) ::sigaction(SIGHUP, &action, nullptr);
}

bool interrupt_requested() { return requested.load(std::memory_order_relaxed); }

void clear_interrupt() { requested = false; }

void reset_interrupt_for_testing() { clear_interrupt(); }

}  // namespace nanochat
