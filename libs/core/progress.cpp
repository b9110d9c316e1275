#include "core/progress.h"

#include <sys/ioctl.h>

#include <algorithm>
#include <chrono>
#include <mutex>

#include <spdlog/fmt/fmt.h>

#include "core/elapsed.h"
#include "core/format.h"
#include "core/status_line.h"
#include "core/terminal.h"

namespace nanochat {
namespace {

constexpr double kRedrawSeconds = 0.1;
constexpr std::size_t kBarCells = 24;
constexpr std::size_t kMaxParts = 16;  // the terminal must hold them all, or they could not be taken away again

class ProgressBar : public ProgressReporter {
 public:
  ProgressBar(int fd, double plain_interval_seconds)
      : fd_(fd), terminal_(is_terminal(fd)), interval_(terminal_ ? kRedrawSeconds : plain_interval_seconds) {}

  ~ProgressBar() override { end(); }

  void start(std::string_view what, std::int64_t total, std::string_view unit) override {
    end();
    const std::lock_guard lock(mutex_);
    what_ = what;
    unit_ = unit;
    note_.clear();
    parts_.clear();
    total_ = total;
    done_ = 0;
    started_ = shown_ = SteadyClock::now();
    running_ = true;
    if (terminal_) status_line::draw(fd_, lines());
  }

  void set_total(std::int64_t total) override {
    const std::lock_guard lock(mutex_);
    total_ = total;
    show_when_due();
  }

  void set_parts(const std::vector<ProgressPart>& parts) override {
    const std::lock_guard lock(mutex_);
    parts_ = parts;
    show_when_due();
  }

  void advance(std::int64_t amount) override {
    const std::lock_guard lock(mutex_);
    done_ += amount;
    show_when_due();
  }

  void note(std::string_view text) override {
    const std::lock_guard lock(mutex_);
    note_ = text;
    show_when_due();
  }

  void finish() override { end(); }

 private:
  void show_when_due() {
    if (!running_ || seconds_since(shown_) < interval_) return;
    shown_ = SteadyClock::now();
    if (terminal_) {
      status_line::draw(fd_, lines());
    } else {
      status_line::write_all(fd_, line(false) + "\n");
    }
  }

  void end() {
    const std::lock_guard lock(mutex_);
    if (!running_) return;
    running_ = false;
    const double elapsed = seconds_since(started_);
    std::string text = fmt::format("{}: {} {} in {}", what_, with_commas(done_), unit_, human_duration(elapsed));
    if (!note_.empty()) text += " | " + note_;
    if (terminal_) {
      status_line::finish(fd_, fitted(std::move(text)));
    } else {
      status_line::write_all(fd_, text + "\n");
    }
  }

  static std::string bar(double fraction) {
    const auto filled = static_cast<std::size_t>(fraction * kBarCells);
    return "[" + std::string(filled, '#') + std::string(kBarCells - filled, '-') + "]";
  }

  static double fraction_of(std::int64_t done, std::int64_t total) {
    return std::clamp(static_cast<double>(done) / static_cast<double>(total), 0.0, 1.0);
  }

  // What a terminal shows: the whole, and below it the parts, their names as one column.
  std::string lines() const {
    std::string text = line(true);
    std::size_t width = 0;
    for (const ProgressPart& part : parts_) width = std::max(width, part.name.size());
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      const ProgressPart& part = parts_[i];
      if (i == kMaxParts) {
        text += fmt::format("\n  and {} more", parts_.size() - i);
        break;
      }
      std::string shown = fmt::format("  {:<{}} ", part.name, width);
      if (part.total > 0) {
        const double fraction = fraction_of(part.done, part.total);
        shown += fmt::format("{:3.0f}% {} {}/{} {}", fraction * 100, bar(fraction), with_commas(part.done),
                             with_commas(part.total), unit_);
      } else {
        shown += fmt::format("{} {}", with_commas(part.done), unit_);
      }
      text += "\n" + fitted(std::move(shown));
    }
    return text;
  }

  // The line as of now, e.g. "tokenizing 42% [##########--------------] 1,234/2,938 documents | 55/s | 31.0s left".
  std::string line(bool with_bar) const {
    const double elapsed = seconds_since(started_);
    const double rate = elapsed > 0 ? static_cast<double>(done_) / elapsed : 0;
    std::string text(what_);
    if (total_ > 0) {
      const double fraction = fraction_of(done_, total_);
      text += fmt::format(" {:3.0f}%", fraction * 100);
      if (with_bar) text += " " + bar(fraction);
      text += " " + with_commas(done_) + "/" + with_commas(total_) + " " + unit_;
    } else {
      text += " " + with_commas(done_) + " " + unit_;
    }
    if (done_ > 0) {
      text += rate >= 10 ? fmt::format(" | {}/s", with_commas(static_cast<std::int64_t>(rate)))
                         : fmt::format(" | {:.2g}/s", rate);
      const auto left = static_cast<double>(total_ - done_);
      if (left > 0) text += " | " + human_duration(left / rate) + " left";
    }
    if (!note_.empty()) text += " | " + note_;
    return with_bar ? fitted(std::move(text)) : text;
  }

  // Cut to the width of the terminal: a line that wraps cannot be redrawn.
  std::string fitted(std::string text) const {
    winsize size{};
    const std::size_t columns = ::ioctl(fd_, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1u : 79u;
    if (text.size() <= columns) return text;
    std::size_t shown = 0;
    std::size_t end = 0;
    while (end < text.size()) {  // count characters, not bytes, and never cut one in two
      if ((static_cast<unsigned char>(text[end]) & 0xc0) != 0x80 && shown++ == columns) break;
      ++end;
    }
    text.resize(end);
    return text;
  }

  const int fd_;
  const bool terminal_;
  const double interval_;
  std::mutex mutex_;
  std::string what_, unit_, note_;
  std::vector<ProgressPart> parts_;
  std::int64_t total_ = 0, done_ = 0;
  SteadyClock::time_point started_, shown_;
  bool running_ = false;
};

}  // namespace

std::unique_ptr<ProgressReporter> make_progress_bar(int fd, double plain_interval_seconds) {
  return std::make_unique<ProgressBar>(fd, plain_interval_seconds);
}

}  // namespace nanochat
