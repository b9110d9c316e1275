#pragma once
// Every file format that the program reads, what the calculator is given, and the requests of the server (request_formats.h), for
// the corruption tests and the fuzzers: a valid file, and what reads one from memory. A format joins both by a line in formats().

#include <functional>
#include <string>
#include <vector>

namespace nanochat::testing {

struct Format {
  std::string name;  // also that of its fuzzer
  std::function<std::string()> sample;  // a valid file
  std::function<std::string(const std::string& bytes)> read;  // a digest of all that was read; throws nanochat::Error
  bool detects_all = false;  // has a checksum: damage never passes unseen
};

const std::vector<Format>& formats();
const Format& format_of(const std::string& name);  // throws std::out_of_range

}  // namespace nanochat::testing
