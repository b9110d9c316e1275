#pragma once
// For tests only: damages files with a seeded random generator and checks how readers handle damaged files.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace nanochat {
class Rng;
}

namespace nanochat::testing {

// `bytes` with one to three random changes, never unchanged: truncation, flipped bits, bytes overwritten, inserted or
// removed, ranges exchanged, numbers (binary or decimal) replaced by others such as huge ones or the file's own lengths.
std::string corrupted(const std::string& bytes, Rng& rng);

// How one format is read. `read` gets the damaged bytes and returns a digest of
// all it read. It may throw classes derived from nanochat::Error and nothing else.
struct CorruptionSubject {
  std::string name;
  std::string original;
  std::function<std::string(const std::string&)> read;
  bool detects_all = false;  // data that is read without an error must equal the original, as with a checksum
};

struct CorruptionLimits {
  double seconds = 5.0;                             // limit for one read
  std::size_t extra_bytes = std::size_t{64} << 20;  // memory limit for one read, in addition to twice the file size
};

struct CorruptionReport {
  int refused = 0, equal = 0, different = 0;
  double slowest_seconds = 0.0;
  std::string failures;  // empty if all promises hold; otherwise one line per failure, with its round
};

// Reads `rounds` corruptions in a separate process, so a crash, a hang or too much memory is reported as a
// failure. RLIMIT_AS or AddressSanitizer's allocator limits memory. The seed determines the corruptions.
CorruptionReport check_corruptions(const CorruptionSubject& subject, int rounds, std::uint64_t seed,
                                   const CorruptionLimits& limits = {});

}  // namespace nanochat::testing
