#include "core/testing_corruption.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cctype>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <limits>
#include <new>
#include <stdexcept>
#include <utility>
#include <vector>

#include "core/elapsed.h"
#include "core/errors.h"
#include "core/random.h"

#if defined(__SANITIZE_ADDRESS__)
#define NANOCHAT_ADDRESS_SANITIZER
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NANOCHAT_ADDRESS_SANITIZER
#endif
#endif
#ifdef NANOCHAT_ADDRESS_SANITIZER
// Of sanitizer/allocator_interface.h, which clang installs and g++ does not; the runtimes of both have them.
extern "C" {
std::size_t __sanitizer_get_allocated_size(const volatile void* pointer);
int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void*, std::size_t),
                                              void (*on_free)(const volatile void*));
}
#endif

namespace nanochat::testing {
namespace {

// Begin and end of every run of decimal digits.
std::vector<std::pair<std::size_t, std::size_t>> numbers_in(const std::string& bytes) {
  std::vector<std::pair<std::size_t, std::size_t>> found;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (std::isdigit(static_cast<unsigned char>(bytes[i])) == 0) continue;
    const std::size_t begin = i;
    while (i < bytes.size() && std::isdigit(static_cast<unsigned char>(bytes[i])) != 0) ++i;
    found.emplace_back(begin, i);
  }
  return found;
}

// Positions near the beginning, where headers are, come up as often as all others.
std::size_t position_in(const std::string& bytes, Rng& rng) {
  constexpr std::size_t kHeader = 256;
  return rng.below(rng.below(2) == 0 ? std::min(bytes.size(), kHeader) : bytes.size());
}

void corrupt_once(std::string& bytes, Rng& rng) {
  static const std::vector<std::string> kNumbers = {"0",
                                                    "1",
                                                    "-1",
                                                    "2",
                                                    "255",
                                                    "65536",
                                                    "2147483648",
                                                    "4294967296",
                                                    "1000000000",
                                                    "1e9",
                                                    "1e308",
                                                    "1e999",
                                                    "1e-400",
                                                    "9223372036854775807",
                                                    "18446744073709551615",
                                                    "18446744073709551616",
                                                    "-9223372036854775809",
                                                    "null",
                                                    "\"1\"",
                                                    "[]"};
  if (bytes.empty()) {
    bytes.push_back(static_cast<char>(rng.below(256)));
    return;
  }
  const std::size_t at = position_in(bytes, rng);
  switch (rng.below(10)) {
    case 0: bytes.resize(rng.below(bytes.size())); break;
    case 1: [[fallthrough]];
    case 2: bytes[at] = static_cast<char>(bytes[at] ^ (1 << rng.below(8))); break;
    case 3: {
      const std::size_t end = std::min(bytes.size(), at + 1 + rng.below(8));
      for (std::size_t i = at; i < end; ++i) bytes[i] = static_cast<char>(rng.below(256));
      break;
    }
    case 4: {
      const auto byte = static_cast<char>(rng.below(256));
      bytes.insert(at, 1 + rng.below(16), byte);
      break;
    }
    case 5: bytes.erase(at, 1 + rng.below(rng.below(4) == 0 ? bytes.size() : 16)); break;
    case 6: {  // two spans change places
      const std::size_t other = rng.below(bytes.size());
      const std::size_t length = std::min({1 + rng.below(64), bytes.size() - at, bytes.size() - other});
      for (std::size_t i = 0; i < length; ++i) std::swap(bytes[at + i], bytes[other + i]);
      break;
    }
    case 7: {  // a binary length lies
      const auto size = static_cast<std::uint64_t>(bytes.size());
      const std::uint64_t values[] = {0,
                                      1,
                                      size - 1,
                                      size,
                                      size + 1,
                                      2 * size,
                                      UINT64_C(1) << 31,
                                      UINT64_C(1) << 32,
                                      UINT64_C(1) << 40,
                                      UINT64_C(1) << 62,
                                      static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()),
                                      std::numeric_limits<std::uint64_t>::max(),
                                      rng.next()};
      const std::uint64_t value = values[rng.below(std::size(values))];
      const std::size_t width = rng.below(2) == 0 ? 4 : 8, aligned = at / 4 * 4;
      std::memcpy(bytes.data() + aligned, &value, std::min(width, bytes.size() - aligned));
      break;
    }
    default: {  // a decimal number lies, or takes another's place
      const auto numbers = numbers_in(bytes);
      if (numbers.empty()) {
        bytes[at] = static_cast<char>(rng.below(256));
        break;
      }
      const auto [begin, end] = rng.choose(numbers);
      const auto [other, other_end] = rng.choose(numbers);
      const std::string lie = rng.below(2) == 0 ? rng.choose(kNumbers) : bytes.substr(other, other_end - other);
      bytes.replace(begin, end - begin, lie);
      break;
    }
  }
}

// What parent and child share.
struct Board {
  std::atomic<int> round, refused, equal, different;
  std::atomic<double> slowest;
  std::array<char, 8192> failures;
};

void fail(Board& board, const std::string& what) {
  const std::size_t used = std::strlen(board.failures.data());
  std::snprintf(board.failures.data() + used, board.failures.size() - used, "%s\n", what.substr(0, 400).c_str());
}

#ifdef NANOCHAT_ADDRESS_SANITIZER
std::atomic<std::int64_t> live_bytes = 0, peak_bytes = 0;
void on_malloc(const volatile void*, std::size_t bytes) {
  const std::int64_t now = live_bytes += static_cast<std::int64_t>(bytes);
  if (now > peak_bytes) peak_bytes = now;
}
void on_free(const volatile void* pointer) {
  if (pointer != nullptr)
    live_bytes -= static_cast<std::int64_t>(__sanitizer_get_allocated_size(const_cast<const void*>(pointer)));
}
#endif

// A bound on the memory of one read. Counting is for AddressSanitizer, whose shadow no limit of the address space fits.
class MemoryBound {
 public:
  MemoryBound() {
#ifdef NANOCHAT_ADDRESS_SANITIZER
    __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
#else
    ::getrlimit(RLIMIT_AS, &unlimited_);
#endif
  }
  void begin(std::size_t bytes) {
#ifdef NANOCHAT_ADDRESS_SANITIZER
    peak_bytes = live_bytes.load();
    allowed_ = live_bytes + static_cast<std::int64_t>(bytes);
#else
    std::size_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    rlimit limit = unlimited_;
    limit.rlim_cur = pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)) + bytes;
    ::setrlimit(RLIMIT_AS, &limit);
#endif
  }
  // False when it was exceeded without anyone noticing.
  bool end() {
#ifdef NANOCHAT_ADDRESS_SANITIZER
    return peak_bytes <= allowed_;
#else
    ::setrlimit(RLIMIT_AS, &unlimited_);
    return true;
#endif
  }

 private:
#ifdef NANOCHAT_ADDRESS_SANITIZER
  std::int64_t allowed_ = 0;
#else
  rlimit unlimited_{};
#endif
};

void set_alarm(double seconds) {
  itimerval timer{};
  timer.it_value.tv_sec = static_cast<time_t>(seconds);
  timer.it_value.tv_usec = static_cast<suseconds_t>(1e6 * (seconds - static_cast<double>(timer.it_value.tv_sec)));
  ::setitimer(ITIMER_REAL, &timer, nullptr);
}

void read_one(const CorruptionSubject& subject, const std::string& expected, const std::string& damaged,
              const std::string& where, MemoryBound& memory, const CorruptionLimits& limits, Board& board) {
  const auto start = SteadyClock::now();
  set_alarm(limits.seconds);  // SIGALRM ends the process: the parent sees it
  memory.begin(2 * damaged.size() + limits.extra_bytes);
  std::string digest, error, unexpected;
  try {
    digest = subject.read(damaged);
  } catch (const OutOfMemoryError& caught) {
    unexpected = std::string("took too much memory: ") + caught.what();
  } catch (const Error& caught) {
    error = caught.what();
    if (error.empty()) unexpected = "threw an error that says nothing";
    if (error.find('\n') != std::string::npos) unexpected = "threw an error of several lines: " + error;
  } catch (const std::bad_alloc&) {
    unexpected = "took too much memory";
  } catch (const std::exception& caught) {
    unexpected = std::string("threw what is no Error: ") + caught.what();
  }
  if (!memory.end()) unexpected = "took too much memory";
  set_alarm(0);
  board.slowest = std::max(board.slowest.load(), seconds_since(start));
  if (!unexpected.empty()) return fail(board, where + unexpected);
  if (!error.empty()) {
    ++board.refused;
  } else if (digest == expected) {
    ++board.equal;
  } else if (subject.detects_all) {
    fail(board, where + "was read as something else: " + digest);
  } else {
    ++board.different;
  }
}

[[noreturn]] void work(const CorruptionSubject& subject, int rounds, std::uint64_t seed, const CorruptionLimits& limits,
                       Board& board) {
  ::signal(SIGALRM, SIG_DFL);
  std::string expected;
  try {
    expected = subject.read(subject.original);  // also loads what the first read loads once
  } catch (const std::exception& error) {
    fail(board, subject.name + ": the original cannot be read: " + error.what());
    ::_exit(0);
  }
  MemoryBound memory;
  for (int round = board.round; round < rounds; board.round = ++round) {
    const std::string where = subject.name + ", round " + std::to_string(round) + ": ";
    Rng rng(derive_seed(seed, where));
    read_one(subject, expected, corrupted(subject.original, rng), where, memory, limits, board);
  }
  ::_exit(0);
}

}  // namespace

std::string corrupted(const std::string& bytes, Rng& rng) {
  std::string result = bytes;
  while (result == bytes) {
    const std::uint64_t times = 1 + (rng.below(3) == 0 ? rng.below(3) : 0);
    for (std::uint64_t i = 0; i < times; ++i) corrupt_once(result, rng);
  }
  return result;
}

CorruptionReport check_corruptions(const CorruptionSubject& subject, int rounds, std::uint64_t seed,
                                   const CorruptionLimits& limits) {
  void* shared = ::mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) throw std::runtime_error("cannot map the board");
  Board& board = *new (shared) Board{};
  while (board.round < rounds) {
    const pid_t child = ::fork();
    if (child < 0) throw std::runtime_error("fork failed");
    if (child == 0) work(subject, rounds, seed, limits, board);
    int status = 0;
    while (::waitpid(child, &status, 0) < 0) {
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) break;
    const std::string where = subject.name + ", round " + std::to_string(board.round) + ": ";
    fail(board, where + (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? "hangs"
                         : WIFSIGNALED(status) ? std::string("crashed: ") + ::strsignal(WTERMSIG(status))
                                               : "ended with " + std::to_string(WEXITSTATUS(status))));
    ++board.round;  // on behind it
  }
  CorruptionReport report;
  report.refused = board.refused;
  report.equal = board.equal;
  report.different = board.different;
  report.slowest_seconds = board.slowest;
  report.failures = board.failures.data();
  ::munmap(shared, sizeof(Board));
  return report;
}

}  // namespace nanochat::testing
