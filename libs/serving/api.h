#pragma once
// Api answers HTTP requests: routes, API keys, CORS and the endpoints. It takes exchanges (http_message.h) and no sockets, so
// tests call it directly. Thread-safe.
//
//   Api api(options);
//   HttpServer server({}, [&](auto exchange) { api.handle(exchange); },
//                     [&](int status, auto reason, auto& request) { return api.refuse(status, reason, request); });
//   server.start();
//   api.set_model(load());
//
// Before set_model(), and after set_draining(), /health and every endpoint that needs the model answer with status 503.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "serving/answer_limits.h"
#include "serving/http_message.h"
#include "serving/request_defaults.h"
#include "serving/served_model.h"
#include "serving/session_limits.h"

namespace nanochat {

class AnswerAdmission;
class AnswerCache;
class ApiError;
class ChatSessions;
class RunningAnswers;
class ServedModels;
class ServerMetrics;
struct AnswerPlan;
struct CachedAnswer;
struct ModelCounts;
struct StoredResponse;
template <class Value>
class OwnedStore;

// Gets the names of the models that were replaced, or an error.
using ReloadDone = std::function<void(const std::vector<std::string>& replaced, const std::string& error)>;
// Called when a model has been loaded, with "", or with the reason why it was not.
using LoadDone = std::function<void(const std::string& error)>;

struct ApiOptions {
  std::vector<std::string> api_keys = {};  // empty: no key is needed
  // Origins of web pages that may use the server ("https://example.org"); "*" allows every page.
  std::vector<std::string> cors_origins = {};
  RequestDefaults defaults = {};
  AnswerLimits limits = {};
  SessionLimits sessions = {};
  // Looks for newer checkpoints of the models, for POST /admin/reload. Returns at once, and calls `done` from any thread.
  std::function<void(ReloadDone done)> reload = {};
  // Loads a model that set_model() described without an engine, and calls set_model() with it, then `done` from any thread.
  // Returns at once.
  std::function<void(const std::string& id, LoadDone done)> load = {};
  bool page = true;          // serve the chat page at /
  std::string version = {};  // of the program, for /version
  // Size of the cache of whole answers to requests with temperature 0 or with a seed; 0: no cache.
  std::size_t answer_cache_bytes = 0;
  // Limits of the responses of /v1/responses that are kept for previous_response_id.
  std::size_t max_stored_responses = 1000;
  std::size_t max_stored_bytes = std::size_t{64} << 20;
};

class Api {
 public:
  explicit Api(ApiOptions options);  // throws ConfigError if cors_origins has a text that is not an origin
  ~Api();

  // Serves the model under its name: instead of the one that has it, whose answers are finished, or in addition. Without an
  // engine, it is described only, and requests for it have it loaded.
  void set_model(std::shared_ptr<const ServedModel> model);
  // The engine of a model that was replaced has finished its last request. Its counters stay in /stats and /metrics.
  void forget_engine(const std::shared_ptr<InferenceBackend>& engine);
  void set_draining();
  // Ends all answers with status 503, or with an error event in a stream. Call set_draining() first.
  void end_answers();
  // Answers the request, with an error response if necessary. Does not throw.
  void handle(const std::shared_ptr<HttpExchange>& exchange);
  // Answers what is not a valid request (HttpErrorResponse), in the protocol of its path.
  HttpResponse refuse(int status, std::string_view reason, const HttpRequest& request);

  // All routes, such as "GET /v1/models/{id}". A test compares them with openapi.json.
  static std::vector<std::string> routes();

 private:
  struct Route;
  struct Call;  // api_call.h
  static const std::vector<Route>& table();

  static void find_route(const HttpRequest& request, Call& call);
  HttpHeaders begin(const HttpRequest& request, Call& call);  // returns the headers that every response gets
  void finish(const HttpRequest& request, const Call& call, int status,
              std::size_t bytes) const;  // the log line and the metrics
  HttpResponse dispatch(Call& call);  // status 0: the response is sent later
  void respond(const std::shared_ptr<Call>& call);
  EngineStats engine_stats() const;  // of all engines since the start
  ModelCounts model_counts() const;
  // The answer in the cache, or null; then the plan may have the answer kept.
  std::shared_ptr<const CachedAnswer> find_answer(const Call& call, AnswerPlan& plan) const;
  std::string_view given_key(const HttpRequest& request) const;  // empty if the server needs none
  bool authorized(const HttpRequest& request) const;
  std::string_view allowed_origin(const HttpRequest& request) const;  // for Access-Control-Allow-Origin; empty: not allowed
  HttpHeaders cors_headers(const HttpRequest& request) const;
  HttpResponse preflight(const Call& call) const;
  std::shared_ptr<const ServedModels> models() const;
  std::shared_ptr<const ServedModels> require_models() const;  // throws ApiError (503)

  HttpResponse answer(Call& call);
  HttpResponse stored_response(Call& call);
  HttpResponse delete_response(Call& call);
  HttpResponse session(Call& call);
  HttpResponse delete_session(Call& call);
  HttpResponse count_tokens(Call& call);
  HttpResponse models(Call& call);
  HttpResponse one_model(Call& call);
  HttpResponse tokenize(Call& call);
  HttpResponse detokenize(Call& call);
  HttpResponse tokenizer_info(Call& call);
  HttpResponse health(Call& call);
  HttpResponse stats(Call& call);
  HttpResponse metrics_text(Call& call);
  HttpResponse invalidate_cache(Call& call);
  HttpResponse reload(Call& call);
  HttpResponse openapi(Call& call);
  HttpResponse version(Call& call);
  HttpResponse page(Call& call);

  const ApiOptions options_;
  const std::shared_ptr<ServerMetrics> metrics_;
  const std::shared_ptr<OwnedStore<StoredResponse>> responses_;
  const std::shared_ptr<ChatSessions> sessions_;
  const std::shared_ptr<AnswerCache> cache_;
  const std::unique_ptr<AnswerAdmission> admission_;
  const std::unique_ptr<RunningAnswers> running_;
  mutable std::mutex mutex_;
  std::shared_ptr<const ServedModels> models_;
  std::vector<std::shared_ptr<InferenceBackend>> replaced_;  // engines that finish their last requests
  EngineStats forgotten_;  // counters of those that have
  std::uint64_t loads_ = 0, unloads_ = 0;  // of models
  std::atomic<bool> draining_{false};
  std::atomic<std::uint64_t> request_count_{0};
};

// Whether two strings are equal. The time it takes depends only on the length of `given`, so it reveals nothing of a secret.
bool equal_in_constant_time(std::string_view given, std::string_view secret);

}  // namespace nanochat
