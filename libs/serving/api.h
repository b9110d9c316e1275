#pragma once
// Routes, keys, CORS, and what each endpoint does. Takes exchanges, so that tests need no socket. Thread-safe.
//
// The model may come after the server has started: until set_model(), and while draining, /health says 503 and so does everything
// that needs a model.

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "serving/answer_session.h"
#include "serving/api_request.h"
#include "serving/served_model.h"
#include "serving/server_metrics.h"

namespace nanochat {

struct ApiOptions {
  std::vector<std::string> api_keys = {};  // empty: everybody is served
  std::vector<std::string> cors_origins =
      {};  // origins of pages that may use the server, as normalized_origin takes them; "*": any
  RequestDefaults defaults = {};
  bool page = true;  // the chat page at /
  std::string version = {};  // of the program
};

class Api {
 public:
  explicit Api(ApiOptions options);  // throws ConfigError for cors_origins that no browser sends
  ~Api();

  void set_model(std::shared_ptr<const ServedModel> model);
  void set_draining();
  // Answers every request, errors included; never throws.
  void handle(const std::shared_ptr<HttpExchange>& exchange);

  // "GET /v1/models/{id}": the routes, for the test that compares them with openapi.json.
  static std::vector<std::string> routes();

 private:
  struct Route;
  struct Call;  // api_call.h
  static const std::vector<Route>& table();

  HttpResponse dispatch(Call& call);  // a status of 0: the answer comes later
  bool authorized(const HttpRequest& request) const;
  std::string_view allowed_origin(const HttpRequest& request) const;  // for Access-Control-Allow-Origin; empty: none
  HttpHeaders cors_headers(const HttpRequest& request) const;
  HttpResponse preflight(const HttpRequest& request) const;
  std::shared_ptr<const ServedModel> model() const;  // null: none yet
  std::shared_ptr<const ServedModel> require_model() const;  // throws 503

  HttpResponse answer(Call& call);
  HttpResponse models(Call& call);
  HttpResponse one_model(Call& call);
  HttpResponse tokenize(Call& call);
  HttpResponse detokenize(Call& call);
  HttpResponse tokenizer_info(Call& call);
  HttpResponse health(Call& call);
  HttpResponse stats(Call& call);
  HttpResponse metrics_text(Call& call);
  HttpResponse invalidate_cache(Call& call);
  HttpResponse openapi(Call& call);
  HttpResponse version(Call& call);
  HttpResponse page(Call& call);

  const ApiOptions options_;
  const std::shared_ptr<ServerMetrics> metrics_ = std::make_shared<ServerMetrics>();
  mutable std::mutex mutex_;
  std::shared_ptr<const ServedModel> model_;
  std::atomic<bool> draining_{false};
  std::atomic<std::uint64_t> request_count_{0};
};

// Whether two strings are equal, in a time that depends on the length of `given` alone.
bool equal_in_constant_time(std::string_view given, std::string_view secret);

}  // namespace nanochat
