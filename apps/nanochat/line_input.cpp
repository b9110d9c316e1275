#include "line_input.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>
#include <utility>

#include "core/interrupt.h"

namespace nanochat::cli {

std::optional<std::string> LineInput::next() {
  std::optional<std::string> line = next_as_it_is();
  if (!line) return line;
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  if (std::exchange(first_, false) && line->starts_with(kByteOrderMark)) line->erase(0, kByteOrderMark.size());
  if (line->ends_with('\r')) line->pop_back();
  return line;
}

std::optional<std::string> LineInput::next_as_it_is() {
  while (true) {
    if (const std::size_t end = buffer_.find('\n'); end != std::string::npos) {
      std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return line;
    }
    if (ended_) return buffer_.empty() ? std::nullopt : std::optional(std::exchange(buffer_, {}));
    pollfd input{STDIN_FILENO, POLLIN, 0};
    if (::poll(&input, 1, -1) < 0) {
      if (errno == EINTR && !interrupt_requested()) continue;
      return std::nullopt;
    }
    char bytes[4096];
    const ssize_t n = ::read(STDIN_FILENO, bytes, sizeof bytes);
    if (n > 0) buffer_.append(bytes, static_cast<std::size_t>(n));
    ended_ = n <= 0;
  }
}

}  // namespace nanochat::cli
