#pragma once
// Progress of a long operation. On a terminal one line that redraws itself; otherwise a plain line every few seconds.
// Written to a caller-given sink so that libraries never print: apps/ hands in a reporter, tests a recorder.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace nanochat {

// One of several things that go on at once within the whole, e.g. a file of a download. Total 0: unknown.
struct ProgressPart {
  std::string name;
  std::int64_t done = 0;
  std::int64_t total = 0;
};

// What a library reports to. Implementations are thread-safe.
class ProgressReporter {
 public:
  virtual ~ProgressReporter() = default;
  virtual void start(std::string_view what, std::int64_t total, std::string_view unit) = 0;  // total 0: unknown
  virtual void advance(std::int64_t amount) = 0;
  virtual void note(std::string_view text) = 0;  // shown after the bar, e.g. "loss 3.2 | 9,100 tok/s"
  virtual void finish() = 0;
  virtual void set_total(std::int64_t) {}                       // it turned out to be another
  virtual void set_parts(const std::vector<ProgressPart>&) {}  // what goes on now, each with a bar of its own
};

// Discards everything (--quiet, tests).
class SilentProgress : public ProgressReporter {
 public:
  void start(std::string_view, std::int64_t, std::string_view) override {}
  void advance(std::int64_t) override {}
  void note(std::string_view) override {}
  void finish() override {}
};

// Writes to a file descriptor: a redrawn bar with percentage, rate and time left when it is a terminal, else a line
// every `plain_interval_seconds`. Parts have a line each below it, on a terminal alone, and go when they end.
std::unique_ptr<ProgressReporter> make_progress_bar(int fd, double plain_interval_seconds = 10.0);

}  // namespace nanochat
