#include "download/testing_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <chrono>
#include <map>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <thread>

namespace nanochat::testing {
namespace {

// The value of a header in `head`, without regard to case of its name; empty when it is not there.
std::string header_of(const std::string& head, const std::string& name) {
  for (std::size_t at = head.find("\r\n"); at != std::string::npos; at = head.find("\r\n", at + 2)) {
    const std::size_t begin = at + 2;
    if (head.size() < begin + name.size() + 1 || head[begin + name.size()] != ':') continue;
    const bool same = std::equal(name.begin(), name.end(), head.begin() + static_cast<std::ptrdiff_t>(begin),
                                 [](char a, char b) { return std::tolower(a) == std::tolower(b); });
    if (!same) continue;
    std::size_t value = begin + name.size() + 1;
    while (value < head.size() && head[value] == ' ') ++value;
    return head.substr(value, head.find("\r\n", value) - value);
  }
  return "";
}

}  // namespace

struct TestingServer::State {
  int listener = -1;
  int port = 0;
  std::atomic<bool> ending{false};
  mutable std::mutex mutex;
  std::map<std::string, ServedFile> files;
  std::vector<SeenRequest> seen;
  std::vector<std::jthread> connections;
  std::jthread acceptor;

  // False when the server ends or the other side is gone.
  bool wait_readable(int fd) const {
    while (!ending) {
      pollfd waited{fd, POLLIN, 0};
      if (::poll(&waited, 1, 20) > 0) return true;
    }
    return false;
  }

  bool send_all(int fd, const std::string& bytes) const {
    for (std::size_t at = 0; at < bytes.size() && !ending;) {
      const ssize_t sent = ::send(fd, bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
      if (sent <= 0) return false;
      at += static_cast<std::size_t>(sent);
    }
    return !ending;
  }

  bool send_paced(int fd, const std::string& bytes, double bytes_per_second) const {
    if (bytes_per_second <= 0) return send_all(fd, bytes);
    const std::size_t piece = std::max<std::size_t>(1, static_cast<std::size_t>(bytes_per_second / 100));
    for (std::size_t at = 0; at < bytes.size(); at += piece) {
      if (!send_all(fd, bytes.substr(at, piece))) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return true;
  }

  void accept_all() {
    while (wait_readable(listener)) {
      const int fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) continue;
      connections.emplace_back([this, fd] {
        while (answer_one(fd)) {
        }
        ::close(fd);
      });
    }
  }

  // False: close the connection.
  bool answer_one(int fd) {
    std::string head;
    while (head.find("\r\n\r\n") == std::string::npos) {
      char buffer[4096];
      if (!wait_readable(fd)) return false;
      const ssize_t got = ::recv(fd, buffer, sizeof buffer, 0);
      if (got <= 0) return false;
      head.append(buffer, static_cast<std::size_t>(got));
    }
    SeenRequest request;
    request.method = head.substr(0, head.find(' '));
    const std::size_t begin = request.method.size() + 1;
    request.target = head.substr(begin, head.find(' ', begin) - begin);
    request.range = header_of(head, "Range");
    request.if_range = header_of(head, "If-Range");

    std::string path = request.target;
    if (path.starts_with("http://")) path = path.substr(path.find('/', 7));  // as a proxy is asked
    std::optional<ServedFile> file;
    Fault fault;
    {
      const std::lock_guard lock(mutex);
      seen.push_back(request);
      const auto found = files.find(path);
      if (found != files.end()) {
        file = found->second;
        auto& faults = found->second.faults;
        if (!faults.empty()) {
          fault = faults.front();
          if (!fault.for_ever) faults.erase(faults.begin());
        }
      }
    }
    if (!fault.raw.empty()) return send_all(fd, fault.raw) && false;
    if (!file) return send_all(fd, "HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\nnothing");
    if (fault.status != 0) {
      const std::string page = "<html>not the file</html>";  // must never be taken for it
      return send_all(fd, "HTTP/1.1 " + std::to_string(fault.status) + " Fault\r\n" + fault.headers + "Content-Length: " +
                              std::to_string(page.size()) + "\r\n\r\n" + (request.method == "HEAD" ? "" : page));
    }
    return send_file(fd, request, *file, fault);
  }

  bool send_file(int fd, const SeenRequest& request, const ServedFile& file, const Fault& fault) const {
    const std::string& contents = fault.body.empty() ? file.contents : fault.body;
    std::size_t begin = 0;
    std::string head = "HTTP/1.1 200 OK\r\n";
    const bool unchanged = request.if_range.empty() || (!file.etag.empty() && request.if_range == file.etag) ||
                           (!file.last_modified.empty() && request.if_range == file.last_modified);
    if (!request.range.empty() && unchanged && !fault.ignore_range) {
      begin = std::stoul(request.range.substr(request.range.find('=') + 1));
      const std::string size = std::to_string(contents.size());
      if (begin >= contents.size()) {
        return send_all(fd, "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */" + size +
                                "\r\nContent-Length: 0\r\n\r\n");
      }
      head = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes " + std::to_string(begin) + "-" +
             std::to_string(contents.size() - 1) + "/" + size + "\r\n";
    }
    if (!file.etag.empty()) head += "ETag: " + file.etag + "\r\n";
    if (!file.last_modified.empty()) head += "Last-Modified: " + file.last_modified + "\r\n";
    std::string body = contents.substr(begin);
    if (fault.chunked) {
      head += "Transfer-Encoding: chunked\r\n";
    } else if (fault.claim_length != "none") {
      head += "Content-Length: " + (fault.claim_length.empty() ? std::to_string(body.size()) : fault.claim_length) + "\r\n";
    }
    if (!send_all(fd, head + fault.headers + "\r\n")) return false;
    if (request.method == "HEAD") return true;
    if (fault.stall_after != Fault::kNever) {
      if (send_all(fd, body.substr(0, fault.stall_after))) wait_readable(fd);  // until the other side has had enough
      return false;
    }
    if (fault.chunked && !body.empty()) {
      char size[32];
      std::snprintf(size, sizeof size, "%zx\r\n", body.size());
      body = size + body + "\r\n0\r\n\r\n";
    }
    if (fault.drop_after != Fault::kNever) return send_all(fd, body.substr(0, fault.drop_after)) && false;
    if (!fault.claim_length.empty()) return send_all(fd, body) && false;
    return send_paced(fd, body, file.bytes_per_second);
  }
};

TestingServer::TestingServer() : state_(std::make_unique<State>()) {
  state_->listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* general = reinterpret_cast<sockaddr*>(&address);
  if (::bind(state_->listener, general, size) != 0 || ::listen(state_->listener, 64) != 0 ||
      ::getsockname(state_->listener, general, &size) != 0) {
    throw std::runtime_error("cannot listen on 127.0.0.1");
  }
  state_->port = ntohs(address.sin_port);
  state_->acceptor = std::jthread([this] { state_->accept_all(); });
}

TestingServer::~TestingServer() {
  state_->ending = true;
  state_->acceptor.join();
  state_->connections.clear();  // joins each
  ::close(state_->listener);
}

std::string TestingServer::url() const { return "http://127.0.0.1:" + std::to_string(state_->port); }

void TestingServer::serve(const std::string& path, ServedFile file) {
  const std::lock_guard lock(state_->mutex);
  state_->files[path] = std::move(file);
}

std::vector<SeenRequest> TestingServer::requests() const {
  const std::lock_guard lock(state_->mutex);
  return state_->seen;
}

std::vector<SeenRequest> TestingServer::requests(const std::string& path) const {
  std::vector<SeenRequest> found;
  for (const SeenRequest& request : requests()) {
    if (request.target == path) found.push_back(request);
  }
  return found;
}

}  // namespace nanochat::testing
