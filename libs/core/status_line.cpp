#include "core/status_line.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <mutex>

namespace nanochat::status_line {
namespace {

constexpr std::string_view kClear = "\r\x1b[K";

struct Line {
  std::mutex mutex;
  int fd = -1;  // -1: no line is drawn
  std::string text;
};

Line& line() {
  static Line instance;
  return instance;
}

// What takes `drawn` away: the cursor stands at the end of its last line.
std::string cleared(std::string_view drawn) {
  const auto above = std::count(drawn.begin(), drawn.end(), '\n');
  if (above == 0) return std::string(kClear);
  std::string text = "\r";
  for (auto i = above; i > 0; --i) text += "\x1b[A";
  return text + "\x1b[J";
}

}  // namespace

void write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

void draw(int fd, std::string_view text) {
  Line& current = line();
  const std::lock_guard lock(current.mutex);
  const std::string clear = cleared(current.text);
  current.fd = fd;
  current.text = text;
  write_all(fd, clear + current.text);
}

void finish(int fd, std::string_view text) {
  Line& current = line();
  const std::lock_guard lock(current.mutex);
  const std::string clear = cleared(current.text);
  current.fd = -1;
  current.text.clear();
  write_all(fd, clear + std::string(text) + "\n");
}

void write_above(const std::function<void()>& write) {
  Line& current = line();
  const std::lock_guard lock(current.mutex);
  if (current.fd >= 0) write_all(current.fd, cleared(current.text));
  write();
  if (current.fd >= 0) write_all(current.fd, current.text);
}

}  // namespace nanochat::status_line
