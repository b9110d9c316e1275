#include "serving/api.h"

#include <algorithm>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/format.h"
#include "core/log.h"
#include "serving/api_error.h"
#include "serving/internal/answer_admission.h"
#include "serving/internal/answer_cache.h"
#include "serving/internal/anthropic_format.h"
#include "serving/internal/api_call.h"
#include "serving/internal/chat_sessions.h"
#include "serving/internal/origin.h"
#include "serving/internal/response_store.h"
#include "serving/internal/responses_format.h"
#include "serving/internal/running_answers.h"
#include "serving/internal/server_metrics.h"

namespace nanochat {
namespace {

constexpr std::size_t kLoggedPathBytes = 200;

// Whether `path` matches `pattern`. Sets `argument` to the text that {id} matched.
bool matches(std::string_view pattern, std::string_view path, std::string& argument) {
  const std::size_t brace = pattern.find('{');
  if (brace == std::string_view::npos) return pattern == path;
  if (path.size() <= brace || path.substr(0, brace) != pattern.substr(0, brace)) return false;
  argument = path.substr(brace);
  return true;
}

// The path without a slash at its end.
std::string_view without_slash(std::string_view path) {
  return path.size() > 1 && path.ends_with('/') ? path.substr(0, path.size() - 1) : path;
}

// Clients are configured with a base URL with or without /v1. Every path of a route is therefore also served with /v1 added or
// removed. Such a path has the lower priority.
std::string other_version(std::string_view path) {
  return path.starts_with("/v1/") ? std::string(path.substr(3)) : "/v1" + std::string(path);
}

std::string_view methods_of(std::string_view method) { return method == "GET" ? "GET, HEAD" : method; }

bool is_json_type(std::string_view content_type) {
  std::string type(content_type.substr(0, content_type.find(';')));
  std::transform(type.begin(), type.end(), type.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c; });
  while (!type.empty() && type.back() == ' ') type.pop_back();
  return type.empty() || type == "application/json" || (type.starts_with("application/") && type.ends_with("+json"));
}

// Whether a Content-Encoding says that the body is not encoded.
bool is_identity(std::string_view encoding) {
  std::string name(encoding);
  std::transform(name.begin(), name.end(), name.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c; });
  return name.empty() || name == "identity";
}

// The header names in the list of a preflight request, without names that are not valid (RFC 9110 5.6.2).
std::string header_names(std::string_view list) {
  constexpr std::string_view kSigns = "!#$%&'*+-.^_`|~";
  const auto is_token = [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           kSigns.find(c) != std::string_view::npos;
  };
  std::string names;
  while (!list.empty()) {
    const std::size_t comma = std::min(list.find(','), list.size());
    std::string_view name = list.substr(0, comma);
    list.remove_prefix(std::min(comma + 1, list.size()));
    name.remove_prefix(std::min(name.find_first_not_of(" \t"), name.size()));
    name = name.substr(0, name.find_last_not_of(" \t") + 1);
    if (name.empty() || !std::all_of(name.begin(), name.end(), is_token)) continue;
    names += fmt::format("{}{}", names.empty() ? "" : ", ", name);
  }
  return names;
}

ApiOptions checked(ApiOptions options) {
  for (std::string& origin : options.cors_origins) {
    try {
      origin = normalized_origin(origin);
    } catch (const ConfigError& error) {
      throw ConfigError(fmt::format("--cors-origins: {}", error.what()));
    }
  }
  return options;
}

}  // namespace

bool equal_in_constant_time(std::string_view given, std::string_view secret) {
  volatile unsigned difference = given.size() == secret.size() ? 0u : 1u;
  for (std::size_t i = 0; i < given.size(); ++i) {
    const char other = secret.empty() ? '\0' : secret[i % secret.size()];
    difference = difference | static_cast<unsigned>(static_cast<unsigned char>(given[i] ^ other));
  }
  return difference == 0;
}

Api::Api(ApiOptions options)
    : options_(checked(std::move(options))), metrics_(std::make_shared<ServerMetrics>()),
      responses_(std::make_shared<ResponseStore>(options_.max_stored_responses, options_.max_stored_bytes)),
      sessions_(std::make_shared<ChatSessions>(options_.sessions)),
      cache_(std::make_shared<AnswerCache>(options_.answer_cache_bytes)),
      admission_(std::make_unique<AnswerAdmission>(options_.limits)),
      running_(std::make_unique<RunningAnswers>(options_.limits.request_timeout)), models_(std::make_shared<ServedModels>()) {}
Api::~Api() = default;

const std::vector<Api::Route>& Api::table() {
  static const std::vector<Route> routes = {
      {"POST", "/v1/chat/completions", &Api::answer, false, plan_chat},
      {"POST", "/v1/completions", &Api::answer, false, plan_completion},
      {"POST", "/v1/responses", &Api::answer, false, plan_response, openai_failure, response_error_event},
      {"GET", "/v1/responses/{id}", &Api::stored_response},
      {"DELETE", "/v1/responses/{id}", &Api::delete_response},
      {"GET", "/v1/sessions/{id}", &Api::session},
      {"DELETE", "/v1/sessions/{id}", &Api::delete_session},
      {"POST", "/v1/messages", &Api::answer, false, plan_anthropic_message, anthropic_failure, anthropic_error_event},
      {"POST", "/v1/messages/count_tokens", &Api::count_tokens, false, nullptr, anthropic_failure},
      {"GET", "/v1/models", &Api::models},
      {"GET", "/v1/models/{id}", &Api::one_model},
      {"POST", "/tokenize", &Api::tokenize},
      {"POST", "/detokenize", &Api::detokenize},
      {"GET", "/tokenizer_info", &Api::tokenizer_info},
      {"GET", "/health", &Api::health, true},
      {"GET", "/stats", &Api::stats},
      {"GET", "/metrics", &Api::metrics_text},
      {"POST", "/cache/invalidate", &Api::invalidate_cache},
      {"POST", "/admin/reload", &Api::reload},
      {"GET", "/openapi.json", &Api::openapi, true},
      {"GET", "/version", &Api::version, true},
      {"GET", "/", &Api::page, true},
      {"GET", "/page.css", &Api::page, true},
      {"GET", "/page.js", &Api::page, true},
      {"GET", "/conversations.js", &Api::page, true},
      {"GET", "/markdown.js", &Api::page, true},
      {"GET", "/stream.js", &Api::page, true},
      {"GET", "/icon.svg", &Api::page, true},
  };
  return routes;
}

std::vector<std::string> Api::routes() {
  std::vector<std::string> names;
  for (const Route& route : table()) names.push_back(fmt::format("{} {}", route.method, route.path));
  return names;
}

void Api::set_model(std::shared_ptr<const ServedModel> served) {
  const std::lock_guard lock(mutex_);
  for (const ServedModels::Model& one : models_->all()) {
    if (one->id != served->id) continue;
    if (one->engine != nullptr) replaced_.push_back(one->engine);
    if (one->engine != nullptr && served->engine == nullptr) ++unloads_;
    if (!one->fingerprint.empty() && one->fingerprint != served->fingerprint) cache_->clear();
  }
  if (served->engine != nullptr) ++loads_;
  models_ = std::make_shared<const ServedModels>(models_->with(std::move(served)));
}

void Api::forget_engine(const std::shared_ptr<InferenceBackend>& engine) {
  EngineStats last = engine->stats();
  const std::lock_guard lock(mutex_);
  if (std::erase(replaced_, engine) == 0) return;
  last.keep_counters();
  forgotten_ += last;
}

ModelCounts Api::model_counts() const {
  const std::lock_guard lock(mutex_);
  ModelCounts counts{.models = models_->all().size(), .loads = loads_, .unloads = unloads_};
  for (const ServedModels::Model& one : models_->all()) {
    if (one->engine == nullptr) continue;
    ++counts.loaded;
    counts.bytes += one->memory_bytes;
  }
  return counts;
}

EngineStats Api::engine_stats() const {
  const std::lock_guard lock(mutex_);
  EngineStats sum = models_->stats();
  for (const auto& engine : replaced_) sum += engine->stats();
  return sum += forgotten_;
}

void Api::set_draining() { draining_ = true; }

void Api::end_answers() { running_->end_all(ApiError::unavailable("the server is shutting down and has ended this answer")); }

std::shared_ptr<const ServedModels> Api::models() const {
  const std::lock_guard lock(mutex_);
  return models_;
}

std::shared_ptr<const ServedModels> Api::require_models() const {
  auto served = models();
  if (draining_) throw ApiError::unavailable("the server is shutting down");
  if (!served->ready()) throw ApiError::unavailable("the model is still loading");
  return served;
}

std::string_view Api::given_key(const HttpRequest& request) const {
  if (options_.api_keys.empty()) return {};
  std::string_view given = request.header("x-api-key");
  const std::string_view authorization = request.header("authorization");
  if (given.empty() && authorization.size() > 7) {
    std::string scheme(authorization.substr(0, 7));
    std::transform(scheme.begin(), scheme.end(), scheme.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c; });
    if (scheme == "bearer ")
      given = authorization.substr(std::min(authorization.find_first_not_of(' ', 7), authorization.size()));
  }
  return given;
}

bool Api::authorized(const HttpRequest& request) const {
  if (options_.api_keys.empty()) return true;
  const std::string_view given = given_key(request);
  bool known = false;  // compares all keys, so that the time does not tell which one matches
  for (const std::string& key : options_.api_keys) known = equal_in_constant_time(given, key) || known;
  return known;
}

// ----------------------------------------------------------------------------------------------------------------- CORS

std::string_view Api::allowed_origin(const HttpRequest& request) const {
  const std::string_view origin = request.header("origin");
  if (origin.empty()) return {};
  for (const std::string& allowed : options_.cors_origins) {
    if (allowed == "*" || allowed == origin) return allowed;
  }
  return {};
}

HttpHeaders Api::cors_headers(const HttpRequest& request) const {
  if (options_.cors_origins.empty()) return {};
  HttpHeaders headers = {{"Vary", "Origin"}};
  if (const std::string_view allowed = allowed_origin(request); !allowed.empty()) {
    headers.emplace_back("Access-Control-Allow-Origin", allowed);
    headers.emplace_back("Access-Control-Expose-Headers",
                         "X-Request-Id, X-Session-Id, X-Session-Messages, X-Response-Cache, Retry-After, Traceparent");
  }
  return headers;
}

HttpResponse Api::preflight(const Call& call) const {
  const HttpRequest& request = call.request();
  HttpResponse response{.status = 204, .content_type = {}};
  std::string methods = call.allowed;
  for (const Route& route : table()) {
    if (request.path != "*" || methods.find(route.method) != std::string::npos) continue;
    methods += fmt::format("{}{}", methods.empty() ? "" : ", ", methods_of(route.method));
  }
  if (methods.empty()) throw ApiError(404, "invalid_request_error", "this server has nothing at this path");
  methods += ", OPTIONS";
  response.headers.emplace_back("Allow", methods);
  if (allowed_origin(request).empty()) return response;
  // Clients send headers of their own (the package openai sends x-stainless-*). Every requested name is allowed, because no
  // decision of the server depends on them.
  const std::string names = header_names(request.header("access-control-request-headers"));
  response.headers.emplace_back("Access-Control-Allow-Methods", methods);
  response.headers.emplace_back("Access-Control-Allow-Headers",
                                names.empty() ? "Authorization, Content-Type, X-Api-Key" : names);
  response.headers.emplace_back("Access-Control-Max-Age", "600");
  response.headers.emplace_back("Vary", "Access-Control-Request-Headers");
  return response;
}

// -------------------------------------------------------------------------------------------------------------- dispatch

void Api::find_route(const HttpRequest& request, Call& call) {
  const std::string_view method = request.method == "HEAD" ? std::string_view("GET") : std::string_view(request.method);
  const std::string_view path = without_slash(request.path);
  const std::string other = other_version(path);
  for (const std::string_view candidate : {path, std::string_view(other)}) {
    for (const Route& route : table()) {
      std::string argument;
      if (!matches(route.path, candidate, argument)) continue;
      call.failure = route.failure;
      call.allowed += fmt::format("{}{}", call.allowed.empty() ? "" : ", ", methods_of(route.method));
      if (method != route.method || call.route != nullptr) continue;
      call.route = &route;
      call.argument = std::move(argument);
    }
    if (!call.allowed.empty()) return;
  }
}

HttpResponse Api::dispatch(Call& call) {
  const HttpRequest& request = call.request();
  if (request.path.empty()) throw ApiError::invalid("the target of the request is neither a path nor a URL");
  if (request.method == "OPTIONS") return preflight(call);
  if ((call.route == nullptr || !call.route->open) && !authorized(request)) {
    throw ApiError(401, "authentication_error",
                   "found no valid API key, expected one in \"Authorization: Bearer KEY\" or \"X-Api-Key: KEY\"", {},
                   "invalid_api_key");
  }
  if (call.route == nullptr && !call.allowed.empty()) {
    throw ApiError(405, "invalid_request_error", fmt::format("method: found {}, expected {}", request.method, call.allowed), {},
                   "method_not_allowed")
        .with_header("Allow", call.allowed);
  }
  if (call.route == nullptr) {
    throw ApiError(404, "invalid_request_error", "this server has nothing at this path; /openapi.json lists all paths", {},
                   "not_found");
  }
  if (request.method == "POST" && !request.body.empty() && !is_json_type(request.header("content-type"))) {
    throw ApiError(415, "invalid_request_error",
                   fmt::format("Content-Type: found \"{}\", expected \"application/json\"", request.header("content-type")), {},
                   "unsupported_media_type");
  }
  for (const auto& [name, value] : request.headers) {
    if (name != "content-encoding" || request.body.empty() || is_identity(value)) continue;
    throw ApiError(415, "invalid_request_error",
                   fmt::format("Content-Encoding: found \"{}\", expected a body that is not encoded",
                               replace_invalid_utf8(value)),
                   {}, "unsupported_content_encoding")
        .with_header("Accept-Encoding", "identity");
  }
  return (this->*call.route->function)(call);
}

HttpHeaders Api::begin(const HttpRequest& request, Call& call) {
  call.id = fmt::format("req-{}", ++request_count_);
  call.trace = parse_traceparent(request.header("traceparent"));
  find_route(request, call);
  HttpHeaders headers = cors_headers(request);
  headers.emplace_back("X-Request-Id", call.id);
  if (call.failure == anthropic_failure) headers.emplace_back("Request-Id", call.id);  // the name in Anthropic's API
  if (call.trace) headers.emplace_back("Traceparent", call.trace->traceparent());
  metrics_->begin_request();
  return headers;
}

void Api::finish(const HttpRequest& request, const Call& call, int status, std::size_t bytes) const {
  metrics_->end_request(call.route == nullptr ? "other" : call.route->path, status);
  const double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - call.begin).count();
  const auto quoted = [](std::string_view text) {
    return nlohmann::json(replace_invalid_utf8(text.substr(0, kLoggedPathBytes))).dump(-1, ' ', true);
  };
  std::string line = fmt::format("request id={} client={} method={} path={} status={} ms={:.1f} bytes={}", call.id,
                                 request.client, quoted(request.method), quoted(request.path), status, ms, bytes);
  if (call.trace) line += fmt::format(" trace_id={} span_id={}", call.trace->trace_id, call.trace->span_id);
  if (const auto outcome = call.outcome()) {
    const EngineUsage& usage = outcome->usage;
    if (!outcome->cached) call.place->charge(usage.prompt_tokens + usage.completion_tokens);
    line += fmt::format(" prompt_tokens={} cached_tokens={} completion_tokens={} finish={}", usage.prompt_tokens,
                        usage.cached_tokens, usage.completion_tokens, outcome->finish_reasons);
    if (outcome->cached) line += " answer_cache=hit";
  }
  log_info("{}", line);
}

void Api::Call::fail(const ApiError& error) const {
  if (stream_begun()) {
    loading->end(route->failure_event(error), *exchange);
  } else {
    exchange->respond(failure(error));
  }
}

void Api::Call::abort(const ApiError& error) {
  if (waiting.exchange(false) && !ended) fail(error);
}

void Api::handle(const std::shared_ptr<HttpExchange>& exchange) {
  const auto call = std::make_shared<Call>();
  call->exchange = exchange;
  call->begin = exchange->arrival();
  exchange->add_headers(begin(exchange->request(), *call));
  // The exchange drops this function at its end. That also breaks the cycle of the call, which owns the exchange.
  exchange->on_end([this, call](int status, std::size_t bytes) {
    call->ended = true;
    finish(call->request(), *call, status, bytes);
  });
  respond(call);
}

void Api::respond(const std::shared_ptr<Call>& call) {
  if (call->ended) return;  // the client has left
  HttpResponse response;
  try {
    response = dispatch(*call);
  } catch (const ModelNotLoaded& missing) {
    if (!options_.load) return call->fail(ApiError::unavailable("the model is not loaded"));
    if (missing.stream() && call->loading == nullptr) {
      call->loading = std::make_shared<LoadingStream>();
      call->loading->wait(*call->exchange);
    }
    call->waiting = true;
    options_.load(missing.id(), [this, call, id = missing.id()](const std::string& error) {
      if (!call->waiting.exchange(false)) return;  // it has been ended
      if (error.empty()) return respond(call);
      call->fail(ApiError::unavailable(fmt::format("model: \"{}\" could not be loaded: {}", id, error)));
    });
    running_->add(call, call->begin);
    return;
  } catch (...) {
    return call->fail(current_api_error());
  }
  if (response.status != 0) call->exchange->respond(std::move(response));
}

HttpResponse Api::refuse(int status, std::string_view reason, const HttpRequest& request) {
  Call call;
  const HttpHeaders headers = begin(request, call);
  HttpResponse response = call.failure(http_error(status, reason));
  response.headers.insert(response.headers.end(), headers.begin(), headers.end());
  finish(request, call, status, response.body.size());
  return response;
}

}  // namespace nanochat
