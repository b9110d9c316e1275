// nanochat serve: a model behind OpenAI's protocol.
#include <chrono>
#include <filesystem>
#include <thread>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "checkpoint/checkpoint.h"
#include "command_line.h"
#include "commands.h"
#include "core/atomic_file.h"
#include "core/interrupt.h"
#include "core/log.h"
#include "core/sha256.h"
#include "inference/calculator_tool.h"
#include "inference/chat.h"
#include "inference/engine.h"
#include "inference/answer_constraint.h"
#include "inference/token_trie.h"
#include "runtime/runtime.h"
#include "serving/api.h"
#include "serving/api_error.h"
#include "serving/api_keys.h"
#include "serving/http_server.h"

namespace nanochat::cli {
namespace {

namespace fs = std::filesystem;

struct ServeArguments {
  fs::path model;
  std::string model_name;
  fs::path api_key_file;
  std::int64_t max_body_mb = 8;
  ApiOptions api;
  HttpServerOptions http;
  EngineOptions engine;
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

// The name of the run, or of the folder that holds the model.
std::string default_name(const fs::path& checkpoint) {
  const fs::path folder = fs::is_directory(checkpoint) ? checkpoint : checkpoint.parent_path();
  const bool in_run = folder.parent_path().filename() == "checkpoints";
  return (in_run ? folder.parent_path().parent_path() : folder).filename().string();
}

std::shared_ptr<ServedModel> describe(const ServeArguments& arguments, const LoadedModel& loaded) {
  auto served = std::make_shared<ServedModel>();
  served->id = arguments.model_name.empty() ? default_name(loaded.folder) : arguments.model_name;
  const auto age = fs::file_time_type::clock::now() - fs::last_write_time(loaded.folder);
  served->created =
      std::chrono::duration_cast<std::chrono::seconds>((std::chrono::system_clock::now() - age).time_since_epoch()).count();
  served->tokenizer = loaded.tokenizer;
  served->fingerprint = "fp_" + sha256_hex(loaded.training_state.dump() + loaded.tokenizer->fingerprint() +
                                           std::to_string(served->created))
                                    .substr(0, 12);
  served->stop_tokens = end_tokens(*loaded.tokenizer);
  served->has_tools = has_calculator_tokens(*loaded.tokenizer);
  const auto trie = std::make_shared<const TokenTrie>(loaded.tokenizer->vocab_size(), [&](std::int32_t id) {
    return loaded.tokenizer->is_special(id) ? std::string_view() : loaded.tokenizer->token_bytes(id);
  });
  const auto constraints = std::make_shared<ConstraintCache>(trie);
  served->make_constraint = [constraints](AnswerForm form, const nlohmann::ordered_json& value) {
    return constraints->make(form, value);
  };
  return served;
}

ExitCode serve(ServeArguments& arguments, const std::string& key_source) {
  arguments.engine.validate();
  gather_api_keys(arguments, key_source, arguments.api.api_keys);
  arguments.http.limits.body_bytes = static_cast<std::size_t>(arguments.max_body_mb) << 20;
  arguments.api.version = NANOCHAT_VERSION;
  const Runtime runtime = select_runtime(arguments.runtime, Workload::kDecoding);

  // Listens before the model is there: a load balancer asks /health meanwhile.
  auto api = std::make_shared<Api>(arguments.api);
  HttpServer server(
      arguments.http, [api](std::shared_ptr<HttpExchange> exchange) { api->handle(exchange); }, http_error_response);
  server.start();
  log_info("listening on {}", url_of(arguments.http, server.port()));

  LoadedModel loaded = load_model(arguments.model, runtime.dtype, runtime.device);
  if (loaded.tokenizer == nullptr) {
    throw CheckpointError(fmt::format("{}: no tokenizer beside the model, and serving needs one", loaded.folder.string()));
  }
  const std::shared_ptr<ServedModel> served = describe(arguments, loaded);
  arguments.engine.make_tool = [tokenizer = served->tokenizer] { return make_calculator_tool(*tokenizer); };
  const auto engine = std::make_shared<Engine>(std::move(loaded.model), arguments.engine);
  // However this function ends: a running request holds the model that is served, and with it the engine.
  const std::unique_ptr<Engine, void (*)(Engine*)> stopped_at_the_end(engine.get(), [](Engine* running) { running->stop(); });
  served->engine = engine;
  engine->start();
  api->set_model(served);
  while (!engine->ready() && !interrupt_requested()) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  if (!interrupt_requested())
    log_info("ready: \"{}\" with a context of {}, {}", served->id, engine->context_length(), runtime.description);

  while (!interrupt_requested()) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  log_info("shutting down: {} requests are finished first", engine->stats().running + engine->stats().queued);
  api->set_draining();
  engine->drain();
  server.stop(std::chrono::seconds(5));  // what is written but not yet taken
  engine->stop();
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
  command.option("model", &arguments->model,
                 "A run, a checkpoint, or a .safetensors file with config.json in the same folder.");
  command.option("model_name", &arguments->model_name, "Model id in the API; default: the name of the model's folder.");
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
  command.option("prefix_cache", &engine.prefix_cache, "Reuse cached prompt prefixes across requests.");
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
