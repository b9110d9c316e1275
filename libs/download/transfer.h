#pragma once
// One HTTP request over libcurl, and how it ended. What to make of that, and whether to try again, is the caller's.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "download/partial_file.h"

namespace nanochat {

struct TransferLimits {
  double connect_timeout_seconds = 30;
  double stall_seconds = 30;                  // given up when so long a time brought less than
  std::uint64_t min_bytes_per_second = 1024;  // this rate
  int max_redirects = 10;
};

struct TransferRequest {
  std::string url;
  bool head = false;         // the headers alone
  std::uint64_t offset = 0;  // > 0: from there on (Range), and, unless it is empty, only if the version is still
  std::string if_range = {}; // this one
};

// The last answer of a chain of redirects. `version.sha256` and, where the last one does not tell, `version.bytes` may
// come from an earlier one.
struct TransferResponse {
  long status = 0;
  RemoteVersion version = {};                        // bytes: of the whole file
  std::optional<std::uint64_t> length = {};          // of this body
  std::optional<std::uint64_t> range_begin = {};     // of Content-Range
  bool delimited = false;                            // a dropped connection can be told from the body's end
  std::string content_type = {}, content_encoding = {};
  std::optional<double> retry_after_seconds = {};
};

struct TransferHandlers {
  // Once, before the first byte of the body or, for an empty one, after it. False: the body is not wanted.
  std::function<bool(const TransferResponse&)> response;
  std::function<bool(const char* data, std::size_t bytes)> body;  // false: no more is wanted
  std::function<bool()> stopped;                                  // asked ten times a second and more
};

struct TransferEnd {
  enum class Kind {
    kComplete,   // the whole answer arrived, whatever its status
    kRefused,    // a handler wanted no more
    kStopped,    // as `stopped` asked
    kDropped,    // the connection, or what leads to one, failed: worth trying again
    kImpossible  // it will not be another the next time: redirects in a circle, a certificate that does not hold
  };
  Kind kind = Kind::kDropped;
  std::string reason = {};  // for kDropped and kImpossible
};

// Keeps connections open from one request to the next. Follows redirects, from https to https alone; verifies
// certificates; http and https only; proxies as libcurl has them (https_proxy, no_proxy, ...). An object is for one
// thread at a time. Exceptions of handlers come out of perform().
class Transfer {
 public:
  explicit Transfer(const TransferLimits& limits);
  ~Transfer();
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

  TransferEnd perform(const TransferRequest& request, const TransferHandlers& handlers, TransferResponse& response);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace nanochat
