// The endpoints.
#include <fnmatch.h>

#include <atomic>
#include <random>

#include <spdlog/fmt/fmt.h>

#include "core/format.h"
#include "serving/api_error.h"
#include "serving/internal/answer_cache.h"
#include "serving/internal/api_call.h"
#include "serving/internal/api_request.h"
#include "serving/internal/embedded.h"
#include "serving/internal/json_fields.h"
#include "serving/internal/running_answers.h"
#include "tokenizer/special_tokens.h"

namespace nanochat {
namespace {

using Json = nlohmann::ordered_json;

HttpResponse json_response(const Json& value) {
  return HttpResponse{.body = value.dump(-1, ' ', false, Json::error_handler_t::replace)};
}

Json model_json(const ServedModel& model) {
  Json object;
  object["id"] = model.id;
  object["object"] = "model";
  object["created"] = model.created;
  object["owned_by"] = "nanochat";
  object["max_model_len"] = model.context_length();
  object["loaded"] = model.engine != nullptr;
  return object;
}

ApiError no_response(const std::string& id) {
  return {404, "invalid_request_error", fmt::format("response: found \"{}\", expected the id of a stored response", id), "id",
          "response_not_found"};
}

// The text of tokens without special tokens. /cache/invalidate compares it with a prefix or a pattern.
std::string plain_text(const Tokenizer& tokenizer, std::span<const std::int32_t> ids) {
  std::string text;
  for (const std::int32_t id : ids) {
    if (id < tokenizer.vocab_size() && !tokenizer.is_special(id)) text += tokenizer.token_bytes(id);
  }
  return text;
}

// What one engine, or all of them together, have done.
void add_engine_stats(Json& object, const EngineStats& engine) {
  object["cache_hits"] = engine.cache_hits;
  object["cache_misses"] = engine.cache_misses;
  object["queue"] = engine.queued;
  object["queued_tokens"] = engine.queued_tokens;
  object["running"] = engine.running;
  object["kv_blocks_used"] = engine.kv_blocks_used;
  object["kv_blocks_cached"] = engine.kv_blocks_cached;
  object["kv_blocks_total"] = engine.kv_blocks_total;
  object["steps"] = engine.steps;
  object["preemptions"] = engine.preemptions;
  object["requests_finished"] = engine.finished;
  object["requests_cancelled"] = engine.cancelled;
  object["requests_failed"] = engine.failed;
  object["requests_refused"] = engine.refused;
  object["prompt_tokens"] = engine.prompt_tokens;
  object["cached_tokens"] = engine.cached_tokens;
  object["completion_tokens"] = engine.completion_tokens;
  object["drafted_tokens"] = engine.drafted_tokens;
  object["accepted_tokens"] = engine.accepted_tokens;
  object["prompt_tokens_per_second"] = engine.prompt_tokens_per_second;
  object["completion_tokens_per_second"] = engine.completion_tokens_per_second;
}

}  // namespace

// All endpoints that generate text. Their differences are in the plan.
HttpResponse Api::answer(Call& call) {
  thread_local std::mt19937_64 random{std::random_device{}()};
  const auto served = require_models();
  // A request that waited for its model comes here twice.
  if (call.place == nullptr) call.place = admission_->admit(std::string(given_key(call.request())));
  RequestDefaults defaults = options_.defaults;
  defaults.seed = random();
  const std::string_view session = call.request().header("x-session-id");
  if (!session.empty() && call.route->plan != plan_chat) {
    throw ApiError::invalid("X-Session-Id: is not supported at this path; only /v1/chat/completions has sessions", "session_id",
                            "unsupported");
  }
  AnswerPlan plan = call.route->plan({*served, call.request().body, defaults, responses_, sessions_, session,
                                      std::string(given_key(call.request()))});
  const bool begun = call.stream_begun();
  if (plan.turn) {
    call.exchange->add_headers({{"X-Session-Id", plan.turn->id()},
                                {"X-Session-Messages", std::to_string(plan.turn->earlier())}});
  }
  if (const auto known = find_answer(call, plan)) {
    call.set_cached(known);
    HttpResponse response = known->response(*plan.format, plan.stream);
    if (!begun) return response;
    call.loading->end(std::move(response.body), *call.exchange);
    return later();
  }
  call.exchange->drop_body();  // it may be long, and so may the answer
  const auto answer = std::make_shared<AnswerSession>(metrics_, call.exchange, std::move(plan), begun);
  call.set_answer(answer);
  answer->start();
  if (begun) call.loading->follow(answer, *call.exchange);
  running_->add(answer, call.begin);
  return later();
}

std::shared_ptr<const CachedAnswer> Api::find_answer(const Call& call, AnswerPlan& plan) const {
  const auto key = cache_->enabled() ? answer_key(call.route->path, call.request().body, plan) : std::nullopt;
  if (!key) return nullptr;
  std::string owner(given_key(call.request()));
  auto known = cache_->find(*key, owner);
  if (known == nullptr) {
    plan.keep = [cache = cache_, key = *key, owner = std::move(owner)](CachedAnswer answer) {
      answer.owner = owner;
      cache->put(key, std::move(answer));
    };
  }
  call.exchange->add_headers({{"X-Response-Cache", known == nullptr ? "miss" : "hit"}});
  return known;
}

HttpResponse Api::stored_response(Call& call) {
  if (call.request().query.find("stream=true") != std::string::npos) {
    throw ApiError::invalid("stream: is not supported; a stored response is returned whole", "stream", "unsupported");
  }
  const auto stored = responses_->find(call.argument, std::string(given_key(call.request())));
  if (stored == nullptr) throw no_response(call.argument);
  return {.body = stored->body};
}

HttpResponse Api::delete_response(Call& call) {
  if (!responses_->erase(call.argument, std::string(given_key(call.request())))) throw no_response(call.argument);
  return json_response({{"id", call.argument}, {"object", "response"}, {"deleted", true}});
}

HttpResponse Api::session(Call& call) {
  return json_response(sessions_->describe(call.argument, std::string(given_key(call.request()))));
}

HttpResponse Api::delete_session(Call& call) {
  sessions_->erase(call.argument, std::string(given_key(call.request())));
  return json_response({{"id", call.argument}, {"object", "session"}, {"deleted", true}});
}

HttpResponse Api::count_tokens(Call& call) {
  const auto served = require_models();
  return json_response({{"input_tokens", count_anthropic_tokens(*served, call.request().body, options_.defaults)}});
}

HttpResponse Api::models(Call&) {
  Json list = Json::array();
  for (const auto& served : require_models()->all()) list.push_back(model_json(*served));
  return json_response({{"object", "list"}, {"data", std::move(list)}});
}

HttpResponse Api::one_model(Call& call) { return json_response(model_json(*require_models()->describe(call.argument))); }

// Accepts the fields of llama.cpp, {"content", "add_special"}, and of vLLM, {"prompt", "add_special_tokens"}. vLLM's default is
// to add special tokens, llama.cpp's is not to.
HttpResponse Api::tokenize(Call& call) {
  const auto models = require_models();
  const nlohmann::json body = parse_json_object(call.request().body);
  const JsonFields fields(body);
  const auto& served = models->find(fields.string("model").value_or(""));
  const auto content = fields.string("content");
  const auto prompt = fields.string("prompt");
  if (!content && !prompt) throw ApiError::invalid("content: missing (\"prompt\" has the same meaning)", "content");
  const auto add_special = fields.boolean("add_special");
  const auto add_special_tokens = fields.boolean("add_special_tokens");
  const bool with_bos = content ? add_special.value_or(false) : add_special_tokens.value_or(true);
  const std::string& text = content ? *content : *prompt;
  std::vector<TokenId> ids;
  if (with_bos) ids.push_back(served->tokenizer->bos_id());
  // Text never becomes a special token, with one exception: lm-eval learns the ids of the special tokens that /tokenizer_info
  // lists by sending each of them alone.
  const auto special = prompt && !with_bos ? served->tokenizer->special_id(text) : std::nullopt;
  if (special) {
    ids.push_back(*special);
  } else {
    served->tokenizer->encode(text, ids);
  }
  return json_response({{"tokens", ids}, {"count", ids.size()}, {"max_model_len", served->engine->context_length()}});
}

HttpResponse Api::detokenize(Call& call) {
  const auto models = require_models();
  const nlohmann::json body = parse_json_object(call.request().body);
  const JsonFields fields(body);
  const auto& served = models->find(fields.string("model").value_or(""));
  const nlohmann::json* tokens = fields.array("tokens");
  if (tokens == nullptr) throw ApiError::invalid("tokens: missing", "tokens");
  const std::vector<TokenId> ids = parse_token_ids(*tokens, "tokens");
  for (const TokenId id : ids) {
    if (id < served->tokenizer->vocab_size()) continue;
    throw ApiError::invalid(fmt::format("tokens: found token id {}, expected one below {}, the vocabulary size", id,
                                        served->tokenizer->vocab_size()),
                            "tokens");
  }
  const std::string text = replace_invalid_utf8(served->tokenizer->decode(ids));
  return json_response({{"content", text}, {"prompt", text}});
}

HttpResponse Api::tokenizer_info(Call&) {
  const auto models = require_models();
  const auto& served = models->find("");
  const Tokenizer& tokenizer = *served->tokenizer;
  const TokenId bos = tokenizer.bos_id();
  const auto end = tokenizer.special_id(kAssistantEnd);
  Json object;
  object["tokenizer_class"] = tokenizer.type();
  object["vocab_size"] = tokenizer.vocab_size();
  object["model_max_length"] = served->engine->context_length();
  object["bos_token"] = std::string(tokenizer.token_bytes(bos));
  object["bos_token_id"] = bos;
  object["eos_token"] = std::string(tokenizer.token_bytes(end.value_or(bos)));
  object["eos_token_id"] = end.value_or(bos);
  object["pad_token"] = std::string(tokenizer.token_bytes(bos));
  object["special_tokens"] = tokenizer.special_tokens();
  object["fingerprint"] = tokenizer.fingerprint();
  object["chat_template"] =
      nullptr;  // the server renders chats; a template could not prevent text from becoming a special token
  return json_response(object);
}

HttpResponse Api::health(Call&) {
  const bool loaded = models()->ready();
  const char* status = draining_ ? "draining" : loaded ? "ok" : "loading";
  HttpResponse response = json_response({{"status", status}, {"model_loaded", loaded}});
  if (draining_ || !loaded) {
    response.status = 503;
    response.headers.emplace_back("Retry-After", "1");
  }
  response.headers.emplace_back("Cache-Control", "no-store");
  return response;
}

HttpResponse Api::stats(Call&) {
  const EngineStats engine = engine_stats();
  Json object;
  object["active_sessions"] = metrics_->active_requests();
  object["total_requests"] = metrics_->total_requests();
  object["sessions"] = sessions_->count();
  object["session_bytes"] = sessions_->bytes();
  const ModelCounts models = model_counts();
  object["models"] = models.models;
  object["models_loaded"] = models.loaded;
  object["model_loads"] = models.loads;
  object["model_unloads"] = models.unloads;
  object["model_bytes"] = models.bytes;
  const AnswerCacheStats cache = cache_->stats();
  object["response_cache_hits"] = cache.hits;
  object["response_cache_misses"] = cache.misses;
  object["response_cache_answers"] = cache.answers;
  object["response_cache_bytes"] = cache.bytes;
  add_engine_stats(object, engine);
  for (const EngineStats& replica : engine.replicas) add_engine_stats(object["replicas"].emplace_back(), replica);
  return json_response(object);
}

HttpResponse Api::metrics_text(Call&) {
  const EngineStats engine = engine_stats();
  const bool none = models()->all().empty();
  return {.content_type = "text/plain; version=0.0.4; charset=utf-8",
          .body = metrics_->prometheus(none ? nullptr : &engine, model_counts(), cache_->stats())};
}

// Of the model that the request names, or of all models.
HttpResponse Api::invalidate_cache(Call& call) {
  const auto models = require_models();
  const nlohmann::json body = parse_json_object(call.request().body, true);
  const JsonFields fields(body);
  const auto prefix = fields.string("prefix");
  const auto pattern = fields.string("pattern");
  const auto name = fields.string("model");
  if (prefix && pattern) throw ApiError::invalid("pattern: found prefix and pattern, expected only one of them", "pattern");
  std::vector<ServedModels::Model> chosen = name ? std::vector{models->describe(*name)} : models->all();
  std::erase_if(chosen, [](const ServedModels::Model& model) { return model->engine == nullptr; });  // they have no cache
  if (chosen.empty()) return json_response({{"invalidated_count", 0}});
  struct Answer {
    std::atomic<std::size_t> waiting;
    std::atomic<std::int64_t> count{0};
  };
  const auto answer = std::make_shared<Answer>();
  answer->waiting = chosen.size();
  for (const auto& served : chosen) {
    std::function<bool(std::span<const std::int32_t>)> matches;
    if (prefix) {
      matches = [tokenizer = served->tokenizer, text = *prefix](std::span<const std::int32_t> ids) {
        return plain_text(*tokenizer, ids).starts_with(text);
      };
    } else if (pattern) {
      matches = [tokenizer = served->tokenizer, text = *pattern](std::span<const std::int32_t> ids) {
        return ::fnmatch(text.c_str(), plain_text(*tokenizer, ids).c_str(), 0) == 0;
      };
    }
    served->engine->invalidate(std::move(matches), [exchange = call.exchange, answer](std::int64_t count) {
      answer->count += count;
      if (--answer->waiting == 0) exchange->respond(json_response({{"invalidated_count", answer->count.load()}}));
    });
  }
  return later();
}

HttpResponse Api::reload(Call& call) {
  require_models();
  // A page of another origin can send a request without a body to a server on the same machine.
  if (!call.request().header("origin").empty() && allowed_origin(call.request()).empty()) {
    throw ApiError(403, "permission_error", "Origin: found a page, expected a program or an origin of --cors-origins");
  }
  if (!options_.reload) throw ApiError::invalid("this server cannot reload its models", {}, "unsupported");
  options_.reload([exchange = call.exchange](const std::vector<std::string>& replaced, const std::string& error) {
    exchange->respond(error.empty() ? json_response({{"reloaded", replaced}}) : openai_failure(ApiError::internal(error)));
  });
  return later();
}

HttpResponse Api::openapi(Call&) { return {.body = std::string(openapi_files().front().text)}; }

HttpResponse Api::version(Call&) { return json_response({{"version", options_.version}}); }

HttpResponse Api::page(Call& call) {
  const std::string_view path = call.route->path;
  const std::string_view name = path == "/" ? std::string_view("index.html") : path.substr(1);
  for (const EmbeddedFile& file : page_files()) {
    if (file.name != name || !options_.page) continue;
    HttpResponse response{.body = std::string(file.text)};
    response.content_type = name.ends_with(".html")  ? "text/html; charset=utf-8"
                            : name.ends_with(".css") ? "text/css; charset=utf-8"
                            : name.ends_with(".js")  ? "text/javascript; charset=utf-8"
                                                     : "image/svg+xml";
    response.headers = {{"Content-Security-Policy",
                         "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
                         "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
                        {"X-Content-Type-Options", "nosniff"},
                        {"Referrer-Policy", "no-referrer"},
                        {"Cache-Control", "no-cache"}};
    return response;
  }
  throw ApiError(404, "invalid_request_error", "this server has no page", {}, "not_found");
}

}  // namespace nanochat
