// Thousands of streams of chats at the same time, for streams_load.py. It uses little of the processor, because it shares the
// cores of the server that it measures: it keeps the text of each answer and nothing else.
//
//   stream_client PORT STREAMS REQUEST...      each REQUEST a file with all bytes of a request for a stream
//
// Stream i sends request i modulo their number, on a connection of its own. One stream in twenty reads a byte at a time. Prints
// "open" when all requests are sent, "begun" when the head of each response has come, and at the end a line for each stream: the
// number of its request, 1 if it ended with [DONE] and 0 otherwise, and its text as it stands in the JSON.
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "load_socket.h"

namespace {

using namespace nanochat::load;

constexpr std::size_t kSlow = 20;  // every how manyth stream reads a byte at a time
constexpr std::size_t kConnectAtATime = 50;
constexpr std::size_t kPiece = 16 << 10;  // bytes of a read

struct Stream {
  int socket = -1;
  std::size_t piece = kPiece;
  std::string line;  // the beginning of a line
  std::string text;
  bool begun = false, done = false;
};

// Events of a stream are whole lines, whatever chunks they come in.
void take_line(Stream& stream, std::string_view line) {
  constexpr std::string_view kContent = "\"content\":\"";
  if (line.starts_with("HTTP/1.1 200 ")) stream.begun = true;
  if (!line.starts_with("data: ")) return;
  if (line == "data: [DONE]") stream.done = true;
  const std::size_t found = line.find(kContent);
  if (found == std::string_view::npos) return;
  for (std::size_t i = found + kContent.size(); i < line.size() && line[i] != '"'; ++i) {
    stream.text += line[i];
    if (line[i] == '\\') stream.text += line[++i];
  }
}

// Whether the stream goes on.
bool take(Stream& stream) {
  std::array<char, kPiece> bytes;
  const ssize_t n = ::recv(stream.socket, bytes.data(), stream.piece, 0);
  if (n <= 0) return false;
  std::string_view rest(bytes.data(), static_cast<std::size_t>(n));
  while (true) {
    const std::size_t end = rest.find('\n');
    stream.line += rest.substr(0, end);
    if (end == std::string_view::npos) return true;
    take_line(stream, stream.line);
    stream.line.clear();
    rest.remove_prefix(end + 1);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: stream_client PORT STREAMS REQUEST...\n");
    return 2;
  }
  const auto port = static_cast<std::uint16_t>(std::atoi(argv[1]));
  std::vector<Stream> streams(static_cast<std::size_t>(std::atoi(argv[2])));
  const std::vector<std::string> requests = read_requests(argv + 3, argv + argc);

  const int poll = ::epoll_create1(0);
  std::size_t opened = 0, begun = 0, ended = 0;
  while (ended < streams.size()) {
    for (std::size_t i = 0; i < kConnectAtATime && opened < streams.size(); ++i, ++opened) {
      Stream& stream = streams[opened];
      const std::string& request = requests[opened % requests.size()];
      if (opened % kSlow == 0) stream.piece = 1;
      stream.socket = send_request(port, request, poll, opened);
      if (opened + 1 == streams.size()) std::puts("open"), std::fflush(stdout);
    }
    std::array<epoll_event, 256> events;
    const int timeout = opened < streams.size() ? 0 : 120'000;
    const int count = ::epoll_wait(poll, events.data(), static_cast<int>(events.size()), timeout);
    if (count < 0 || (count == 0 && timeout > 0)) fail("no bytes for two minutes");
    for (int e = 0; e < count; ++e) {
      Stream& stream = streams[events[static_cast<std::size_t>(e)].data.u64];
      const bool had_begun = stream.begun;
      const bool more = take(stream);
      if (stream.begun && !had_begun && ++begun == streams.size()) std::puts("begun"), std::fflush(stdout);
      if (more) continue;
      ::close(stream.socket);
      ++ended;
    }
  }
  for (std::size_t i = 0; i < streams.size(); ++i) {
    std::printf("%zu %d %s\n", i % requests.size(), streams[i].done ? 1 : 0, streams[i].text.c_str());
  }
  return 0;
}
