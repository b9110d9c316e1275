#include "download/transfer.h"

#include <curl/curl.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string_view>

#include <spdlog/fmt/fmt.h>

#include "core/elapsed.h"
#include "core/format.h"
#include "download/remote_file.h"

namespace nanochat {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kPollMilliseconds = 50;

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front()))) text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.remove_suffix(1);
  return text;
}

std::string lowered(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// "bytes 5-9/10", "bytes */10"; what is not of this form tells nothing.
void read_content_range(std::string_view value, TransferResponse& response, std::optional<std::uint64_t>& total) {
  if (!lowered(value).starts_with("bytes ")) return;
  value = trimmed(value.substr(6));
  const std::size_t slash = value.find('/');
  if (slash == std::string_view::npos) return;
  total = number(trimmed(value.substr(slash + 1)));
  response.range_begin = number(trimmed(value.substr(0, value.find('-'))));
}

void check(CURLcode code) {
  if (code != CURLE_OK) throw std::runtime_error(fmt::format("libcurl: {}", curl_easy_strerror(code)));
}

void check(CURLMcode code) {
  if (code != CURLM_OK) throw std::runtime_error(fmt::format("libcurl: {}", curl_multi_strerror(code)));
}

void initialise_once() {
  static const CURLcode code = curl_global_init(CURL_GLOBAL_DEFAULT);  // the standard makes the first caller the only one
  check(code);
}

// Failures that the same request meets again.
bool is_impossible(CURLcode code) {
  switch (code) {
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
    case CURLE_TOO_MANY_REDIRECTS:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
    case CURLE_LOGIN_DENIED: return true;
    default: return false;
  }
}

struct HeaderList {
  curl_slist* list = nullptr;
  ~HeaderList() { curl_slist_free_all(list); }
  void add(const std::string& line) {
    curl_slist* longer = curl_slist_append(list, line.c_str());
    if (longer == nullptr) throw std::bad_alloc();
    list = longer;
  }
};

}  // namespace

struct Transfer::State {
  TransferLimits limits;
  CURL* easy = nullptr;
  CURLM* multi = nullptr;
  char error[CURL_ERROR_SIZE] = {};

  // Of the request under way.
  const TransferRequest* request = nullptr;
  const TransferHandlers* handlers = nullptr;
  TransferResponse* response = nullptr;
  std::optional<std::uint64_t> range_total, linked_bytes;
  std::string linked_sha256;
  bool answered = false;  // handlers->response was called
  bool refused = false;
  std::uint64_t received = 0;
  std::exception_ptr exception;

  explicit State(const TransferLimits& transfer_limits) : limits(transfer_limits) {
    initialise_once();
    easy = curl_easy_init();
    multi = curl_multi_init();
    if (easy == nullptr || multi == nullptr) {
      close();
      throw std::bad_alloc();
    }
  }
  ~State() { close(); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  void close() {
    if (easy != nullptr) curl_easy_cleanup(easy);
    if (multi != nullptr) curl_multi_cleanup(multi);
  }

  // Exceptions must not pass through libcurl, which is C: kept, and thrown again in perform().
  template <class Function>
  bool guarded(Function function) {
    try {
      return function();
    } catch (...) {
      exception = std::current_exception();
      return false;
    }
  }

  void header(std::string_view line) {
    if (line.starts_with("HTTP/")) {  // the first line of this answer, maybe after a redirect's or a "100 Continue"
      *response = {};
      range_total.reset();
      const std::size_t space = line.find(' ');
      if (space != std::string_view::npos) response->status = std::atol(std::string(line.substr(space)).c_str());
      response->delimited = line.starts_with("HTTP/2") || line.starts_with("HTTP/3");
      return;
    }
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos) return;
    const std::string name = lowered(line.substr(0, colon));
    const std::string value(trimmed(line.substr(colon + 1)));
    if (name == "etag") {
      response->version.etag = value;
    } else if (name == "last-modified") {
      response->version.last_modified = value;
    } else if (name == "content-length") {
      response->length = number(value);
      response->delimited = response->delimited || response->length.has_value();
    } else if (name == "transfer-encoding") {
      response->delimited = response->delimited || lowered(value).find("chunked") != std::string::npos;
    } else if (name == "content-range") {
      read_content_range(value, *response, range_total);
    } else if (name == "content-type") {
      response->content_type = lowered(value);
    } else if (name == "content-encoding") {
      response->content_encoding = lowered(value);
    } else if (name == "x-linked-etag") {
      // Hugging Face names a large file by the SHA-256 of its bytes, and says so in the redirect to where they lie.
      std::string digest = value;
      std::erase(digest, '"');
      if (std::string found = as_sha256(digest); !found.empty()) linked_sha256 = std::move(found);
    } else if (name == "x-linked-size") {
      linked_bytes = number(value);
    }
  }

  bool answer() {
    if (answered) return !refused;
    answered = true;
    if (response->status == 200) response->version.bytes = response->length;
    if (response->status == 206 || response->status == 416) response->version.bytes = range_total;
    if (!response->version.bytes && (response->status == 200 || response->status == 206)) {
      response->version.bytes = linked_bytes;
    }
    response->version.sha256 = linked_sha256;
    response->version.url = request->url;
    curl_off_t seconds = 0;
    if (curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &seconds) == CURLE_OK && seconds > 0) {
      response->retry_after_seconds = static_cast<double>(seconds);
    }
    refused = !guarded([&] { return handlers->response(*response); });
    return !refused;
  }

  static std::size_t on_header(char* data, std::size_t size, std::size_t count, void* self) {
    State& state = *static_cast<State*>(self);
    return state.guarded([&] {
      state.header({data, size * count});
      return true;
    })
               ? size * count
               : 0;
  }

  static std::size_t on_body(char* data, std::size_t size, std::size_t count, void* self) {
    State& state = *static_cast<State*>(self);
    const std::size_t bytes = size * count;
    if (!state.answer()) return 0;
    state.received += bytes;
    if (!state.guarded([&] { return state.handlers->body(data, bytes); })) {
      state.refused = true;
      return 0;
    }
    return bytes;
  }

  void set_up(const HeaderList& headers) {
    curl_easy_reset(easy);  // connections stay open
    const auto set = [this](CURLoption option, auto value) { check(curl_easy_setopt(easy, option, value)); };
    set(CURLOPT_URL, request->url.c_str());
    set(CURLOPT_PROTOCOLS_STR, "http,https");
    set(CURLOPT_REDIR_PROTOCOLS_STR, lowered(request->url).starts_with("https:") ? "https" : "http,https");
    set(CURLOPT_FOLLOWLOCATION, request->body ? 0L : 1L);  // a redirect could turn POST into GET
    set(CURLOPT_MAXREDIRS, static_cast<long>(limits.max_redirects));
    set(CURLOPT_CONNECTTIMEOUT_MS, std::max(1L, static_cast<long>(limits.connect_timeout_seconds * 1000)));
    set(CURLOPT_SSL_VERIFYPEER, 1L);
    set(CURLOPT_SSL_VERIFYHOST, 2L);
    // libcurl's program reads these, the library does not; people behind an inspecting proxy have them set.
    for (const char* variable : {"CURL_CA_BUNDLE", "SSL_CERT_FILE"}) {
      const char* file = std::getenv(variable);
      if (file == nullptr || *file == '\0') continue;
      set(CURLOPT_CAINFO, file);
      break;
    }
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_NOPROGRESS, 1L);
    set(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    // A wish: a handle whose last request found no address keeps its buffer, and refuses.
    static_cast<void>(curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 256L * 1024));
    set(CURLOPT_USERAGENT, "nanochat");
    set(CURLOPT_ERRORBUFFER, error);
    set(CURLOPT_HEADERFUNCTION, &State::on_header);
    set(CURLOPT_HEADERDATA, static_cast<void*>(this));
    set(CURLOPT_WRITEFUNCTION, &State::on_body);
    set(CURLOPT_WRITEDATA, static_cast<void*>(this));
    set(CURLOPT_HTTPHEADER, headers.list);
    if (request->head) set(CURLOPT_NOBODY, 1L);
    if (request->body) {
      set(CURLOPT_POST, 1L);
      set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request->body->size()));
      set(CURLOPT_POSTFIELDS, request->body->data());
    }
    if (request->offset > 0) set(CURLOPT_RANGE, fmt::format("{}-", request->offset).c_str());
  }

  TransferEnd drive() {
    Clock::time_point window = Clock::now();
    std::uint64_t window_received = 0;
    while (true) {
      int running = 0;
      check(curl_multi_perform(multi, &running));
      if (exception || refused || running == 0) return ended();
      if (handlers->stopped()) return {TransferEnd::Kind::kStopped, ""};
      const double elapsed = seconds_since(window);
      if (elapsed >= limits.stall_seconds) {
        const std::uint64_t gained = received - window_received;
        if (static_cast<double>(gained) < static_cast<double>(limits.min_bytes_per_second) * elapsed) {
          return {TransferEnd::Kind::kDropped, fmt::format("only {} bytes came in {}", gained, human_duration(elapsed))};
        }
        window = Clock::now();
        window_received = received;
      }
      check(curl_multi_poll(multi, nullptr, 0, kPollMilliseconds, nullptr));
    }
  }

  TransferEnd ended() {
    if (exception || refused) return {TransferEnd::Kind::kRefused, ""};
    CURLcode code = CURLE_GOT_NOTHING;
    int left = 0;
    while (const CURLMsg* message = curl_multi_info_read(multi, &left)) {
      if (message->msg == CURLMSG_DONE) code = message->data.result;
    }
    if (code == CURLE_OK) {
      if (!answer()) return {TransferEnd::Kind::kRefused, ""};
      return {TransferEnd::Kind::kComplete, ""};
    }
    const std::string reason = error[0] != '\0' ? error : curl_easy_strerror(code);
    return {is_impossible(code) ? TransferEnd::Kind::kImpossible : TransferEnd::Kind::kDropped, reason};
  }
};

Transfer::Transfer(const TransferLimits& limits) : state_(std::make_unique<State>(limits)) {}
Transfer::~Transfer() = default;

TransferEnd Transfer::perform(const TransferRequest& request, const TransferHandlers& handlers, TransferResponse& response) {
  State& state = *state_;
  response = {};
  state.request = &request;
  state.handlers = &handlers;
  state.response = &response;
  state.range_total.reset();
  state.linked_bytes.reset();
  state.linked_sha256.clear();
  state.answered = state.refused = false;
  state.received = 0;
  state.exception = nullptr;
  state.error[0] = '\0';

  HeaderList headers;
  headers.add("Accept-Encoding: identity");  // the file as it is: sizes and ranges are of its bytes
  if (request.offset > 0 && !request.if_range.empty()) headers.add("If-Range: " + request.if_range);
  for (const std::string& line : request.headers) headers.add(line);
  state.set_up(headers);
  check(curl_multi_add_handle(state.multi, state.easy));
  TransferEnd end;
  try {
    end = state.drive();
  } catch (...) {
    curl_multi_remove_handle(state.multi, state.easy);
    throw;
  }
  curl_multi_remove_handle(state.multi, state.easy);
  if (state.exception) std::rethrow_exception(state.exception);
  return end;
}

}  // namespace nanochat
