#pragma once
// What the clients of the load tests share: requests over plain sockets to a server of this machine, watched by epoll. A failure
// ends the program.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace nanochat::load {

[[noreturn]] inline void fail(const char* what) {
  std::perror(what);
  std::exit(1);
}

inline std::string read_whole(const char* path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// The requests in files, as bytes to send.
inline std::vector<std::string> read_requests(char** first, char** last) {
  std::vector<std::string> requests;
  for (; first != last; ++first) requests.push_back(read_whole(*first));
  return requests;
}

// Sends the request over a new connection to this machine. `poll` then reports what can be read from it as event `number`.
// Returns the socket.
inline int send_request(std::uint16_t port, const std::string& request, int poll, std::uint64_t number) {
  const int client = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (client < 0 || ::connect(client, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) fail("connect");
  const int on = 1;
  ::setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = number;
  if (::epoll_ctl(poll, EPOLL_CTL_ADD, client, &event) != 0) fail("epoll_ctl");
  if (::send(client, request.data(), request.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(request.size())) fail("send");
  return client;
}

}  // namespace nanochat::load
