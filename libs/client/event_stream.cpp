#include "client/event_stream.h"

#include <utility>

#include "core/errors.h"

namespace nanochat {
namespace {

constexpr std::size_t kMaxBytes = std::size_t{16} << 20;

}  // namespace

std::vector<std::string> EventStream::push(std::string_view bytes) {
  std::vector<std::string> complete;
  while (!bytes.empty()) {
    const std::size_t end = bytes.find('\n');
    pending_ += bytes.substr(0, end);
    if (pending_.size() + data_.size() > kMaxBytes) {
      throw DataError("the server sent an event of more than 16 MiB");
    }
    if (end == std::string_view::npos) break;
    bytes.remove_prefix(end + 1);
    if (pending_.ends_with('\r')) pending_.pop_back();
    take_line(std::exchange(pending_, {}), complete);
  }
  return complete;
}

void EventStream::take_line(std::string_view line, std::vector<std::string>& complete) {
  if (line.empty()) {
    if (data_.empty()) return;
    data_.pop_back();
    complete.push_back(std::exchange(data_, {}));
    return;
  }
  const std::size_t colon = line.find(':');
  if (line.substr(0, colon) != "data") return;
  std::string_view value = colon == std::string_view::npos ? std::string_view() : line.substr(colon + 1);
  if (value.starts_with(' ')) value.remove_prefix(1);
  data_ += value;
  data_ += '\n';
}

}  // namespace nanochat
