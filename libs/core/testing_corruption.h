#pragma once
// For tests only: files damaged in seeded ways, and readers held to what they promise about damaged files.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace nanochat {
class Rng;
}

namespace nanochat::testing {

// `bytes` with one to three of these, never as they were: cut off, bits flipped, bytes overwritten, inserted, removed,
// spans exchanged, binary and decimal numbers replaced by others, among them huge ones and the file's own lengths.
std::string corrupted(const std::string& bytes, Rng& rng);

// How one format is read. `read` gets the damaged bytes and returns a digest of all it read; it may throw what is
// derived from nanochat::Error, and nothing else.
struct CorruptionSubject {
  std::string name;
  std::string original;
  std::function<std::string(const std::string&)> read;
  bool detects_all = false;  // what it reads without an error must equal the original, as a checksum guarantees
};

struct CorruptionLimits {
  double seconds = 5.0;                             // of one read
  std::size_t extra_bytes = std::size_t{64} << 20;  // memory of one read beyond twice the file
};

struct CorruptionReport {
  int refused = 0, equal = 0, different = 0;
  double slowest_seconds = 0.0;
  std::string failures;  // empty: it kept its promises; else a line each, with the round
};

// Reads `rounds` corruptions in a process of its own, so that a crash, a hang or a want of memory is a finding and not
// the end. Memory is limited by RLIMIT_AS, or counted by the allocator of AddressSanitizer. One seed, one sequence.
CorruptionReport check_corruptions(const CorruptionSubject& subject, int rounds, std::uint64_t seed,
                                   const CorruptionLimits& limits = {});

}  // namespace nanochat::testing
