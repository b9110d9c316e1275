// Chats for serving_load.py and streams_load.py. It uses little of the processor, because it shares the cores of the server that
// it measures: it sends the same requests over and over, each on a connection of its own, several at a time, and keeps the bytes
// that come as they are.
//
//   chat_client PORT SECONDS REQUEST...      each REQUEST a file with all bytes of a request for a stream
//
// One stream a file at a time, until SECONDS have passed; at least one each. Prints a line an answer when all is over: the
// number of its file, the microseconds from its first bytes to its last, and its bytes as a JSON string.
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "load_socket.h"

namespace {

using namespace nanochat::load;

using Clock = std::chrono::steady_clock;

struct Answer {
  std::size_t number = 0;
  Clock::time_point first, last;
  std::string bytes;
};

struct Chat {
  int socket = -1;
  Answer answer;
};

void begin(Chat& chat, int poll, std::uint16_t port, std::size_t number, const std::string& request) {
  chat.answer = Answer();
  chat.answer.number = number;
  chat.answer.bytes.reserve(64 << 10);
  chat.socket = send_request(port, request, poll, number);
}

// Whether the answer is whole.
bool take(Chat& chat) {
  std::array<char, 16 << 10> bytes;
  const ssize_t n = ::recv(chat.socket, bytes.data(), bytes.size(), 0);
  if (n <= 0) fail("the server closed within an answer");
  chat.answer.last = Clock::now();
  if (chat.answer.bytes.empty()) chat.answer.first = chat.answer.last;
  chat.answer.bytes.append(bytes.data(), static_cast<std::size_t>(n));
  return std::string_view(chat.answer.bytes).ends_with("\r\n0\r\n\r\n");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: chat_client PORT SECONDS REQUEST...\n");
    return 2;
  }
  const auto port = static_cast<std::uint16_t>(std::atoi(argv[1]));
  const double seconds = std::atof(argv[2]);
  const std::vector<std::string> requests = read_requests(argv + 3, argv + argc);

  const int poll = ::epoll_create1(0);
  std::vector<Chat> chats(requests.size());
  std::vector<Answer> answers;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  for (std::size_t i = 0; i < chats.size(); ++i) begin(chats[i], poll, port, i, requests[i]);
  for (std::size_t open = chats.size(); open > 0;) {
    std::array<epoll_event, 64> events;
    const int count = ::epoll_wait(poll, events.data(), static_cast<int>(events.size()), 120'000);
    if (count <= 0) fail("no answer for two minutes");
    for (int e = 0; e < count; ++e) {
      const std::size_t number = events[static_cast<std::size_t>(e)].data.u64;
      if (!take(chats[number])) continue;
      ::close(chats[number].socket);
      answers.push_back(std::move(chats[number].answer));
      if (Clock::now() < end) {
        begin(chats[number], poll, port, number, requests[number]);
      } else {
        --open;
      }
    }
  }
  for (const Answer& answer : answers) {
    const double microseconds = std::chrono::duration<double, std::micro>(answer.last - answer.first).count();
    std::printf("%zu %.1f %s\n", answer.number, microseconds, nlohmann::json(answer.bytes).dump().c_str());
  }
  return 0;
}
