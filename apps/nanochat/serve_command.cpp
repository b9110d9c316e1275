// nanochat serve: a model behind OpenAI's protocol.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <thread>

#include <spdlog/fmt/fmt.h>

#include "command_line.h"
#include "commands.h"
#include "core/atomic_file.h"
#include "core/interrupt.h"
#include "core/log.h"
#include "inference/engine.h"
#include "kv_cache_option.h"
#include "model_host.h"
#include "runtime/runtime.h"
#include "serving/api.h"
#include "serving/api_keys.h"
#include "serving/http_server.h"
#include "speculative_option.h"

namespace nanochat::cli {
namespace {

namespace fs = std::filesystem;

struct ServeArguments {
  std::vector<std::string> models, model_names;
  bool watch = false;
  double watch_interval = 10;  // seconds
  fs::path api_key_file;
  std::int64_t max_body_mb = 8;
  double drain_timeout = 60;  // seconds
  std::int64_t max_sessions = 1000, session_mb = 64;
  std::int64_t response_cache = 0;  // MiB
  double memory = 0;                // 1e9 bytes
  ApiOptions api;
  HttpServerOptions http;
  EngineOptions engine;
  SpeculativeOption speculative;
  KvCacheOption kv_cache;
  std::vector<std::string> devices;
  RuntimeOptions runtime;
};

// Those of --api-key, a flag, a variable or a key of a file (`source`), and those of --api-key-file. A way that was given and
// holds no key is an error: without keys everybody is served.
void gather_api_keys(const ServeArguments& arguments, const std::string& source, std::vector<std::string>& keys) {
  const std::string where = source == "environment" ? "NANOCHAT_API_KEY"
                            : source == "flag"      ? "--api-key"
                                                    : source + ": \"api_key\"";
  if (keys.empty() && source != "default") throw ConfigError(fmt::format("{}: found no key, expected at least one", where));
  for (std::string& key : keys) key = parse_api_key(key, where);
  if (arguments.api_key_file.empty()) return;
  const std::vector<std::string> more = parse_api_key_file(read_file(arguments.api_key_file), arguments.api_key_file.string());
  keys.insert(keys.end(), more.begin(), more.end());
}

// An IPv6 address stands in brackets before a port (RFC 3986 3.2.2).
std::string url_of(const HttpServerOptions& http, int port) {
  const bool brackets = http.host.find(':') != std::string::npos && !http.host.starts_with('[');
  const std::string host = brackets ? fmt::format("[{}]", http.host) : http.host;
  return fmt::format("{}://{}:{}", http.tls_certificate.empty() ? "http" : "https", host, port);
}

// The models with their names, which are given in the same order. Fewer names than models leave the rest to their runs.
std::vector<HostedModel> hosted_models(const ServeArguments& arguments) {
  if (arguments.model_names.size() > arguments.models.size()) {
    throw ConfigError(fmt::format("--model-name: found {} names for {} models, expected at most one each",
                                  arguments.model_names.size(), arguments.models.size()));
  }
  std::vector<HostedModel> models;
  for (std::size_t i = 0; i < arguments.models.size(); ++i) {
    models.push_back({arguments.models[i], i < arguments.model_names.size() ? arguments.model_names[i] : ""});
  }
  return models;
}

// The GPUs of --devices; without it, the device of --device alone.
std::vector<RuntimeOptions> devices_of(const ServeArguments& arguments) {
  if (arguments.devices.empty()) return {arguments.runtime};
  if (arguments.runtime.device != "auto") throw ConfigError("--device and --devices: found both, expected one of them");
  std::vector<RuntimeOptions> devices;
  for (const std::string& number : arguments.devices) {
    const bool digits = !number.empty() && number.find_first_not_of("0123456789") == std::string::npos;
    if (!digits) throw ConfigError(fmt::format("--devices: found \"{}\", expected numbers of GPUs such as 0,1", number));
    devices.push_back(arguments.runtime);
    devices.back().device = "cuda:" + number;
    select_device(devices.back());  // throws for a GPU that is not there, before any weights are read
  }
  return devices;
}

// A connection needs a file descriptor. Shells set the soft limit to 1,024, for programs that use select().
void allow_descriptors(std::int64_t connections) {
  constexpr rlim_t kOthers = 200;  // of the models, the log and what libraries open
  const rlim_t wanted = static_cast<rlim_t>(connections) + kOthers;
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) return;
  limit.rlim_cur = std::min(wanted, limit.rlim_max);
  ::setrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur < wanted) {
    log_warn("--max-connections: found {}, but this process may open {} files only (ulimit -Hn)", connections, limit.rlim_cur);
  }
}

ExitCode serve(ServeArguments& arguments, const std::string& key_source) {
  arguments.engine.speculative = arguments.speculative.get();
  arguments.engine.validate();
  gather_api_keys(arguments, key_source, arguments.api.api_keys);
  arguments.http.limits.body_bytes = static_cast<std::size_t>(arguments.max_body_mb) << 20;
  arguments.api.version = NANOCHAT_VERSION;
  arguments.api.sessions.max_sessions = static_cast<std::size_t>(arguments.max_sessions);
  arguments.api.sessions.max_bytes = static_cast<std::size_t>(arguments.session_mb) << 20;
  arguments.api.answer_cache_bytes = static_cast<std::size_t>(arguments.response_cache) << 20;
  allow_descriptors(arguments.http.max_connections);
  const std::vector<RuntimeOptions> choices = devices_of(arguments);
  const Runtime runtime = select_runtime(choices.front(), Workload::kDecoding);
  std::vector<at::Device> devices = {runtime.device};
  for (const RuntimeOptions& choice : std::span(choices).subspan(1)) devices.push_back(select_device(choice));
  arguments.engine.fp8_cache = arguments.kv_cache.fp8(runtime, std::span(devices).subspan(1));

  // Listens before the models are there: a load balancer asks /health meanwhile. The host comes after the API in this function,
  // and the API calls it only while the server runs.
  ModelHost* host_of_api = nullptr;
  arguments.api.reload = [&host_of_api](ReloadDone done) { host_of_api->reload(std::move(done)); };
  arguments.api.load = [&host_of_api](const std::string& id, LoadDone done) { host_of_api->load_one(id, std::move(done)); };
  auto api = std::make_shared<Api>(arguments.api);
  ModelHost host(hosted_models(arguments), arguments.engine, runtime, devices, *api,
                 static_cast<std::int64_t>(1e9 * arguments.memory));
  host_of_api = &host;
  HttpServer server(
      arguments.http, [api](std::shared_ptr<HttpExchange> exchange) { api->handle(exchange); },
      [api](int status, std::string_view reason, const HttpRequest& request) { return api->refuse(status, reason, request); });
  server.start();
  log_info("listening on {}", url_of(arguments.http, server.port()));

  host.load();
  host.watch(arguments.watch ? arguments.watch_interval : 0);
  if (!interrupt_requested()) {
    log_info("ready: {}{}", runtime.description, devices.size() > 1 ? fmt::format(" and {} more", devices.size() - 1) : "");
  }

  while (!interrupt_requested()) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  log_info("shutting down: {} requests are finished first", host.unfinished());
  api->set_draining();
  server.close_after_responses();
  if (!host.drain(std::chrono::milliseconds(static_cast<std::int64_t>(1e3 * arguments.drain_timeout)))) {
    log_warn("after {} s (--drain-timeout), {} requests are not finished: they end with an error", arguments.drain_timeout,
             host.unfinished());
    api->end_answers();
  }
  server.stop(std::chrono::seconds(5));  // what is written but not yet taken
  host.stop();
  log_info("stopped");
  return ExitCode::kOk;
}

}  // namespace

void add_serve(CommandLine& command_line) {
  auto arguments = std::make_shared<ServeArguments>();
  ApiOptions& api = arguments->api;
  HttpServerOptions& http = arguments->http;
  EngineOptions& engine = arguments->engine;
  Subcommand& command = command_line.add("serve",
                                         "Serve a model through the APIs of OpenAI and Anthropic, with a chat page at /.",
                                         "nanochat serve runs/first --port 8000");
  command.option(
      "model", &arguments->models,
      "Runs, checkpoints, or .safetensors files with config.json in the same folder. Requests choose one by its name; "
      "the first is the default.");
  command
      .option("memory", &arguments->memory,
              "Load models other than the first on first use, and keep the weights and KV caches of all loaded models within "
              "this many GB (10^9 bytes) of each device. To make room, the least recently used model is unloaded. 0 loads all "
              "models at the start.")
      .at_least(0)
      .at_most(1e6);
  command
      .option("model_name", &arguments->model_names,
              "Names of the models in the API, in the same order; default: the names of their folders.")
      .comma_separated();
  command.option(
      "watch", &arguments->watch,
      "Serve the newest checkpoint of a run that still trains. Answers that have begun are finished with the old one.");
  command.option("watch_interval", &arguments->watch_interval, "Seconds between two looks of --watch.")
      .at_least(0.1)
      .at_most(1e6);
  command.option("host", &http.host, "Address to listen on; 0.0.0.0 listens on all network interfaces.");
  command.option("port", &http.port, "Port to listen on; 0 picks a free port.").at_least(0).at_most(65535);
  Option& api_key = command.option("api_key", &api.api_keys,
                                   "API keys; every request must send one of them. Use the variable "
                                   "NANOCHAT_API_KEY so that keys do not appear in the process list.");
  api_key.comma_separated().not_in_resolved();
  command.option("api_key_file", &arguments->api_key_file,
                 "File with one API key per line. Empty lines and lines that begin with # are skipped.");
  command
      .option("cors_origins", &api.cors_origins,
              "Origins of web pages that may call the API (CORS), such as http://localhost:3000; * allows all.")
      .comma_separated();
  command.option("tls_cert", &http.tls_certificate, "Certificate chain in PEM format; serves HTTPS instead of HTTP.");
  command.option("tls_key", &http.tls_key, "Private key of --tls-cert in PEM format.");
  command.option("page", &api.page, "Serve the chat page at /.");
  command.option("temperature", &api.defaults.temperature, "Sampling temperature for requests that do not set one.")
      .at_least(0);
  command
      .option("top_k", &api.defaults.top_k,
              "top_k for requests that do not set one: sample from the k most likely tokens; 0 samples from all.")
      .at_least(0);
  command.option("max_running", &engine.max_running, "Maximum number of answers generated at the same time.").at_least(1);
  command
      .option("max_concurrent", &api.limits.max_concurrent,
              "Maximum number of requests being answered at the same time, including those that wait; further ones get status "
              "429; 0 means no limit.")
      .at_least(0);
  command
      .option("key_max_concurrent", &api.limits.key_max_concurrent,
              "The same for each API key; without keys, for all clients together; 0 means no limit.")
      .at_least(0);
  command
      .option("key_requests_per_minute", &api.limits.key_requests_per_minute,
              "Maximum number of requests for answers per minute and API key; further ones get status 429; 0 means no limit.")
      .at_least(0);
  command
      .option("key_tokens_per_minute", &api.limits.key_tokens_per_minute,
              "Maximum number of tokens, of prompts and answers, per minute and API key; 0 means no limit.")
      .at_least(0);
  command
      .option("request_timeout", &api.limits.request_timeout,
              "End an answer with an error after this many seconds, counted from the arrival of the request; 0 means no limit.")
      .at_least(0);
  command
      .option("drain_timeout", &arguments->drain_timeout,
              "After SIGTERM, wait up to this many seconds for running requests; then end them with an error.")
      .at_least(0)
      .at_most(1e6);
  command
      .option("max_sessions", &arguments->max_sessions,
              "Maximum number of chat sessions that the server keeps; the least recently used goes first; 0 keeps none.")
      .at_least(0);
  command.option("session_mb", &arguments->session_mb, "Maximum size of all chat sessions in MiB of memory.")
      .at_least(1)
      .at_most(1 << 20);
  command.option("session_ttl", &api.sessions.time_to_live, "Drop a chat session that was not used for this many seconds.")
      .at_least(1)
      .at_most(1e9);
  command
      .option("response_cache", &arguments->response_cache,
              "Size in MiB of a cache of whole answers to requests with temperature 0 or a seed; 0 keeps none.")
      .at_least(0)
      .at_most(1 << 20);
  command.option("max_queued", &engine.max_queued, "Maximum number of waiting requests; further ones get status 429.")
      .at_least(0);
  command
      .option("max_queued_tokens", &engine.max_queued_tokens,
              "Maximum number of prompt tokens of all waiting requests; 0 means no limit.")
      .at_least(0);
  command
      .option("max_batch_tokens", &engine.max_batch_tokens,
              "Maximum number of tokens in one forward pass; 0 uses 256 on a CPU and 8192 on a GPU.")
      .at_least(0);
  command
      .option("kv_blocks", &engine.kv_blocks,
              "Number of blocks of the KV cache. 0 allocates enough for --max-running full contexts, but at most a quarter of "
              "the free memory.")
      .at_least(0);
  command.option("block_size", &engine.block_size, "Number of tokens in a block of the KV cache.").at_least(1);
  arguments->kv_cache.declare(command);
  command.option("prefix_cache", &engine.prefix_cache, "Reuse cached prompt prefixes across requests.");
  command
      .option(
          "devices", &arguments->devices,
          "Numbers of GPUs such as 0,1. Each one serves a copy of the model; a request goes to one of them. --max-running and "
          "--kv-blocks hold for each, --max-queued for all together.")
      .comma_separated();
  arguments->speculative.declare(command);
  command.option("deterministic", &engine.batch_invariant,
                 "On a GPU in bfloat16, make results batch-invariant: independent of the other requests in the batch. Prompts "
                 "are slower.");
  command.option("max_body_mb", &arguments->max_body_mb, "Maximum size of a request body in MiB.").at_least(1).at_most(1024);
  command.option("max_connections", &http.max_connections, "Maximum number of open connections; further ones wait.")
      .at_least(1);
  command.option("io_threads", &http.io_threads, "Number of threads that handle network connections.").at_least(1).at_most(16);
  declare_runtime_options(command.options(), arguments->runtime);
  command.positional("model").required("model");
  command.run([arguments, &api_key](Context&) { return serve(*arguments, api_key.source()); });
}

}  // namespace nanochat::cli
