#pragma once
// For tests only: an HTTP server on 127.0.0.1 that misbehaves as asked. Each path has a file and a list of faults, which
// its requests meet in order; after them it is served well, ranges and If-Range included, for as long as it lives.

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace nanochat::testing {

// What to do to one request.
struct Fault {
  int status = 0;                  // answer this alone, e.g. 503
  std::string headers = {};        // more lines of the answer, each with its "\r\n"
  std::size_t drop_after = kNever; // close the connection after so many bytes of the body, however long it is said to be
  std::size_t stall_after = kNever;  // and here send no more, but keep it open
  std::string body = {};           // other bytes than the file's
  std::string claim_length = {};   // Content-Length, whatever is sent; "none": no such header
  bool ignore_range = false;       // the whole file, 200
  bool chunked = false;            // no Content-Length, but a marked end
  std::string raw = {};            // this and nothing else
  bool for_ever = false;           // the next requests too
  static constexpr std::size_t kNever = static_cast<std::size_t>(-1);
};

struct ServedFile {
  std::string contents;
  std::string etag = "\"one\"";     // empty: none
  std::string last_modified = {};
  std::vector<Fault> faults = {};
  double bytes_per_second = 0;      // 0: as fast as it goes
};

struct SeenRequest {
  std::string method, target, range, if_range;
};

class TestingServer {
 public:
  TestingServer();
  ~TestingServer();  // ends all connections
  TestingServer(const TestingServer&) = delete;
  TestingServer& operator=(const TestingServer&) = delete;

  std::string url() const;                       // http://127.0.0.1:PORT
  void serve(const std::string& path, ServedFile file);  // replaces what was there
  std::vector<SeenRequest> requests() const;     // so far
  std::vector<SeenRequest> requests(const std::string& path) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace nanochat::testing
