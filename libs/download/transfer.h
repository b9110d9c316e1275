#pragma once
// One HTTP request with libcurl, and its result. The caller decides whether to retry.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "download/partial_file.h"

namespace nanochat {

struct TransferLimits {
  double connect_timeout_seconds = 30;
  double stall_seconds = 30;                  // give up if the rate is below min_bytes_per_second for so long
  std::uint64_t min_bytes_per_second = 1024;
  int max_redirects = 10;
};

struct TransferRequest {
  std::string url;
  bool head = false;         // request only the headers
  std::optional<std::string> body = {};  // send this with POST, and follow no redirects
  std::vector<std::string> headers = {};  // further lines, such as "Content-Type: application/json"
  std::uint64_t offset = 0;  // > 0: request the bytes from this offset on (Range)
  std::string if_range = {}; // with `offset`: only if the file still has this version; empty: any
};

// The last response of a chain of redirects. `version.sha256`, and `version.bytes` if the last response has none, may come from
// an earlier one.
struct TransferResponse {
  long status = 0;
  RemoteVersion version = {};  // bytes: of the whole file
  std::optional<std::uint64_t> length = {};  // of this body
  std::optional<std::uint64_t> range_begin = {};  // of Content-Range
  bool delimited = false;  // the end of the body can be told from a dropped connection
  std::string content_type = {}, content_encoding = {};
  std::optional<double> retry_after_seconds = {};
};

struct TransferHandlers {
  // Called once, before the body. Return false to refuse the body.
  std::function<bool(const TransferResponse&)> response;
  std::function<bool(const char* data, std::size_t bytes)> body;  // return false to stop
  std::function<bool()> stopped;  // polled at least ten times per second
};

struct TransferEnd {
  enum class Kind {
    kComplete,  // the whole response arrived, whatever its status
    kRefused,  // a handler returned false
    kStopped,  // `stopped` returned true
    kDropped,  // the connection failed; a retry may succeed
    kImpossible  // a retry cannot succeed: a loop of redirects, an invalid certificate
  };
  Kind kind = Kind::kDropped;
  std::string reason = {};  // for kDropped and kImpossible
};

// Reuses connections. Supports http and https, follows redirects (from https only to https), verifies certificates, and uses
// libcurl's proxy variables (https_proxy, no_proxy, ...). For one thread at a time. perform() rethrows exceptions of handlers.
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
