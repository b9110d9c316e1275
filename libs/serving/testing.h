#pragma once
// For tests only: a byte tokenizer with the special tokens of chats, an engine whose answers a test chooses, and an exchange
// without a socket.

#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/sha256.h"
#include "serving/api_error.h"
#include "serving/http_message.h"
#include "serving/served_model.h"
#include "tokenizer/special_tokens.h"

namespace nanochat::testing {

// One token per byte (ids 0 to 255), then the nine special tokens.
class ChatByteTokenizer : public Tokenizer {
 public:
  ChatByteTokenizer() : names_(kChatSpecialTokens.begin(), kChatSpecialTokens.end()) {
    for (int i = 0; i < 256; ++i) bytes_ += static_cast<char>(i);
    fingerprint_ = sha256_hex("chat bytes");
  }
  using Tokenizer::encode;
  std::string_view type() const override { return "byte"; }
  std::int64_t vocab_size() const override { return 265; }
  void encode(std::string_view text, std::vector<TokenId>& ids) const override {
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  }
  std::string_view token_bytes(TokenId id) const override {
    check_id(id);
    return id < 256 ? std::string_view(bytes_).substr(static_cast<std::size_t>(id), 1)
                    : std::string_view(names_[static_cast<std::size_t>(id - 256)]);
  }
  const std::vector<std::string>& special_tokens() const override { return names_; }
  void save(const std::filesystem::path&) const override {}

 private:
  std::vector<std::string> names_;
  std::string bytes_;
};

// Answers every request with `answer`, one token per byte, within submit(). With `manual`, a test sends the events itself.
class FakeBackend : public InferenceBackend {
 public:
  std::string answer = "Hello!";
  bool manual = false;
  Refusal refusal = Refusal::kNone;
  std::int64_t context = 256;
  bool is_ready = true;
  std::size_t replicas = 0;  // that stats() lists

  Submission submit(EngineRequest request) override {
    if (refusal != Refusal::kNone) return {0, refusal};
    std::unique_lock lock(mutex_);
    requests_.push_back(std::move(request));
    const RequestId id = requests_.size();
    lock.unlock();
    if (!manual) run(id);
    return {id, Refusal::kNone};
  }
  void cancel(RequestId id) override {
    const std::lock_guard lock(mutex_);
    cancelled_.push_back(id);
  }
  void invalidate(std::function<bool(std::span<const std::int32_t>)> matches, std::function<void(std::int64_t)> done) override {
    const std::vector<std::int32_t> block = {256, 'a', 'b'};
    done(!matches || matches(block) ? 1 : 0);
  }
  void release_prefix(std::vector<std::int32_t> tokens) override {
    const std::lock_guard lock(mutex_);
    released_.push_back(std::move(tokens));
  }
  EngineStats stats() const override {
    EngineStats stats;
    stats.ready = is_ready;
    stats.cache_hits = 3;
    stats.replicas.resize(replicas);
    return stats;
  }
  bool ready() const override { return is_ready; }
  std::int64_t context_length() const override { return context; }
  std::int64_t vocab_size() const override { return 265; }
  std::int64_t max_choices() const override { return 16; }

  EngineRequest& request(RequestId id) {
    const std::lock_guard lock(mutex_);
    return requests_.at(id - 1);
  }
  std::vector<RequestId> cancelled() const {
    const std::lock_guard lock(mutex_);
    return cancelled_;
  }
  std::vector<std::vector<std::int32_t>> released() const {
    const std::lock_guard lock(mutex_);
    return released_;
  }
  // Breaks a cycle of shared pointers: requests hold the model, and the model holds this. A real engine drops a request after
  // its last event.
  void let_go() {
    std::deque<EngineRequest> requests;  // destroyed after the lock: whoever they hold may call this
    const std::lock_guard lock(mutex_);
    requests.swap(requests_);
  }
  std::size_t submitted() const {
    const std::lock_guard lock(mutex_);
    return requests_.size();
  }

  // Sends an event. token() returns false if the receiver wants no further tokens of the sequence.
  bool token(RequestId id, std::int32_t token, std::int32_t sequence = 0, bool forced = false) {
    const std::vector<SampledToken> top = {{token, -0.5}, {'?', -1.5}};
    EngineEvent event = event_of(id, EngineEventKind::kToken, sequence);
    event.token = {token, forced ? 0.0 : -0.5};
    event.forced = forced;
    if (request(id).top_logprobs > 0) event.top = top;
    return emit(id, event);
  }
  void finish(RequestId id, FinishReason reason, std::string error = {}, std::int32_t sequence = 0) {
    EngineEvent event = event_of(id, EngineEventKind::kFinish, sequence);
    event.reason = reason;
    event.error = std::move(error);
    emit(id, std::move(event));
  }
  void done(RequestId id) { emit(id, event_of(id, EngineEventKind::kDone, 0)); }
  void run(RequestId id) {
    EngineRequest& one = request(id);
    if (one.prompt_logprobs) {
      std::vector<EngineEvent::PromptToken> prompt;
      for (std::size_t i = 1; i < one.prompt.size(); ++i) prompt.push_back({{one.prompt[i], -1.0}, {{one.prompt[i], -1.0}}});
      EngineEvent event = event_of(id, EngineEventKind::kPromptLogprobs, 0);
      event.prompt = prompt;
      emit(id, std::move(event));
    }
    for (std::int32_t sequence = 0; sequence < one.n; ++sequence) {
      FinishReason reason = FinishReason::kStop;
      std::int64_t count = 0;
      for (const char c : answer) {
        if (one.max_tokens && count++ >= *one.max_tokens) {
          reason = FinishReason::kLength;
          break;
        }
        if (!token(id, static_cast<unsigned char>(c), sequence)) {
          reason = FinishReason::kStop;
          break;
        }
      }
      finish(id, reason, {}, sequence);
    }
    done(id);
  }

 private:
  static EngineEvent event_of(RequestId id, EngineEventKind kind, std::int32_t sequence) {
    EngineEvent event;
    event.request = id;
    event.kind = kind;
    event.sequence = sequence;
    return event;
  }
  bool emit(RequestId id, EngineEvent event) {
    EngineRequest& one = request(id);
    event.usage.prompt_tokens = static_cast<std::int64_t>(one.prompt.size());
    event.usage.cached_tokens = 2;
    event.usage.completion_tokens = 5;
    return one.on_event(event);
  }
  mutable std::mutex mutex_;
  std::deque<EngineRequest> requests_;  // a deque, because references must stay valid
  std::vector<RequestId> cancelled_;
  std::vector<std::vector<std::int32_t>> released_;
};

inline std::shared_ptr<ServedModel> fake_model(const std::shared_ptr<FakeBackend>& backend) {
  auto served = std::make_shared<ServedModel>();
  served->id = "tiny";
  served->created = 1700000000;
  served->fingerprint = "fp_test";
  served->tokenizer = std::make_shared<ChatByteTokenizer>();
  served->engine = backend;
  served->stop_tokens = {256, 260};
  return served;
}

// Copies of `body` in which one value, at any depth, is replaced by a value of another kind.
inline std::vector<nlohmann::json> with_a_value_replaced(const nlohmann::json& body) {
  using nlohmann::json;
  std::vector<json::json_pointer> places;
  const std::function<void(const json&, const json::json_pointer&)> visit = [&](const json& value,
                                                                                const json::json_pointer& place) {
    if (!place.empty()) places.push_back(place);
    if (!value.is_structured()) return;
    for (const auto& [key, member] : value.items()) visit(member, value.is_array() ? place / std::stoul(key) : place / key);
  };
  visit(body, json::json_pointer());
  std::vector<json> bodies;
  for (const json::json_pointer& place : places) {
    for (const char* value : {"null", "true", "-5", "1e300", "\"x\"", "[]", "{}", "[null]", "[[\"x\"]]", "{\"type\": 5}"}) {
      bodies.push_back(body);
      bodies.back()[place] = json::parse(value);
    }
  }
  return bodies;
}

// Parses each of these and returns how many are refused. Expects every refusal to be an error of the client.
inline std::size_t count_refused(const nlohmann::json& good, const std::function<void(const nlohmann::json&)>& parse) {
  std::size_t refused = 0;
  for (const nlohmann::json& body : with_a_value_replaced(good)) {
    try {
      parse(body);
    } catch (const ApiError& error) {
      EXPECT_EQ(error.status(), 400) << body;
      ++refused;
    }
  }
  return refused;
}

// Stores the response. text() returns the body, of a stream what can be read so far.
class RecordingExchange : public HttpExchange {
 public:
  using HttpExchange::HttpExchange;
  void respond(HttpResponse given) override {
    if (response) return;
    given.headers.insert(given.headers.end(), added_headers().begin(), added_headers().end());
    response = std::move(given);
  }
  void wake() override {}
  void on_gone(std::function<void()> function) override { gone = std::move(function); }
  void on_quiet(std::function<void()> function) override { quiet = std::move(function); }
  void on_end(std::function<void(int, std::size_t)> function) override { end = std::move(function); }
  // Breaks a cycle of shared pointers: these functions hold the exchange. A real connection drops them at its end.
  void let_go() {
    gone = quiet = nullptr;
    end = nullptr;
    response.reset();
  }
  std::string text() {
    if (response && response->stream && !ended) ended = !response->stream->read(read_so_far);
    return response ? response->body + read_so_far : "";
  }
  std::string header(std::string_view name) const {
    for (const auto& [key, value] : response->headers) {
      if (key == name) return value;
    }
    return {};
  }
  std::optional<HttpResponse> response;
  std::function<void()> gone, quiet;
  std::function<void(int, std::size_t)> end;
  std::string read_so_far;
  bool ended = false;
};

}  // namespace nanochat::testing
