#pragma once
// Progress of a long operation: one line that is redrawn on a terminal, otherwise a plain line every few seconds.
// Libraries report to an object from the caller and never print: apps/ passes a reporter, tests a recorder.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace nanochat {

// One of several parallel parts of an operation, for example a file of a download. Total 0: unknown.
struct ProgressPart {
  std::string name;
  std::int64_t done = 0;
  std::int64_t total = 0;
};

// The interface that libraries report to. Implementations are thread-safe.
class ProgressReporter {
 public:
  virtual ~ProgressReporter() = default;
  virtual void start(std::string_view what, std::int64_t total, std::string_view unit) = 0;  // total 0: unknown
  virtual void advance(std::int64_t amount) = 0;
  virtual void note(std::string_view text) = 0;  // shown after the bar, e.g. "loss 3.2 | 9,100 tok/s"
  virtual void finish() = 0;
  virtual void set_total(std::int64_t) {}                       // corrects the total
  virtual void set_parts(const std::vector<ProgressPart>&) {}  // the current parts, each with its own bar
};

// Discards everything (--quiet, tests).
class SilentProgress : public ProgressReporter {
 public:
  void start(std::string_view, std::int64_t, std::string_view) override {}
  void advance(std::int64_t) override {}
  void note(std::string_view) override {}
  void finish() override {}
};

// Writes to a file descriptor. On a terminal: a redrawn bar with percentage, rate and remaining time, and
// a line for each part below it until the part ends. Otherwise: a line every `plain_interval_seconds`.
std::unique_ptr<ProgressReporter> make_progress_bar(int fd, double plain_interval_seconds = 10.0);

}  // namespace nanochat
