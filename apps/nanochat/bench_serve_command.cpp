// nanochat bench serve: times the batching engine at several numbers of streams, on random weights.
#include <algorithm>
#include <filesystem>
#include <condition_variable>
#include <mutex>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "command_line.h"
#include "commands.h"
#include "core/atomic_file.h"
#include "core/elapsed.h"
#include "core/errors.h"
#include "core/interrupt.h"
#include "core/random.h"
#include "inference/engine.h"
#include "kv_cache_option.h"
#include "model/gpt.h"
#include "runtime/runtime.h"
#include "speculative_option.h"
#include "tokenizer/load.h"
#include "tokenizer/tokenizer.h"

namespace nanochat::cli {
namespace {

using nlohmann::ordered_json;

struct BenchServeArguments {
  std::int64_t depth = 12;
  std::int64_t sequence_len = 2048;
  std::int64_t vocab_size = 65536;
  std::vector<std::string> streams = {"1", "8", "32"};
  std::int64_t prompt_tokens = 128;
  std::int64_t max_tokens = 64;
  std::int64_t max_batch_tokens = EngineOptions().max_batch_tokens;
  double temperature = 1.0;
  std::int64_t steps = 3;
  std::filesystem::path text;       // empty: random prompts and answers
  std::filesystem::path tokenizer;
  SpeculativeOption speculative;
  KvCacheOption kv_cache;
  RuntimeOptions runtime;
};

constexpr std::uint64_t kSeed = 42;

// What one run of so many streams took, in seconds.
struct Run {
  double total = 0.0;
  double first_token = 0.0;     // the median of the streams
  double between_tokens = 0.0;  // the median over all
};

double median(std::vector<double> values) {
  if (values.empty()) return 0.0;
  const auto half = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), half, values.end());
  return *half;
}

// Allows these tokens and no others, so that the model writes a given text at the speed at which it would write its own.
class GivenText final : public TokenConstraint {
 public:
  GivenText(std::span<const std::int32_t> tokens, std::int64_t vocab_size)
      : tokens_(tokens.begin(), tokens.end()), mask_(static_cast<std::size_t>((vocab_size + 63) / 64)) {}

  std::span<const std::uint64_t> allowed(std::int64_t /*room*/) override {
    std::fill(mask_.begin(), mask_.end(), 0);
    const auto next = static_cast<std::size_t>(tokens_[next_]);
    mask_[next / 64] = std::uint64_t{1} << (next % 64);
    return mask_;
  }
  void accept(std::int32_t) override { ++next_; }
  bool may_end() const override { return must_end(); }
  bool must_end() const override { return next_ == tokens_.size(); }
  std::int64_t closing_length() override { return static_cast<std::int64_t>(tokens_.size() - next_); }
  std::unique_ptr<TokenConstraint> clone() const override { return std::make_unique<GivenText>(*this); }

 private:
  std::vector<std::int32_t> tokens_;
  std::vector<std::uint64_t> mask_;
  std::size_t next_ = 0;
};

// The tokens of --text; empty without it.
std::vector<std::int32_t> read_text(BenchServeArguments& arguments) {
  std::vector<std::int32_t> tokens;
  if (arguments.text.empty()) return tokens;
  if (arguments.tokenizer.empty()) throw ConfigError("--text needs a --tokenizer to turn it into tokens");
  const std::shared_ptr<const Tokenizer> tokenizer = load_tokenizer(arguments.tokenizer);
  arguments.vocab_size = tokenizer->vocab_size();
  tokenizer->encode(read_file(arguments.text), tokens);
  const auto needed = static_cast<std::size_t>(arguments.prompt_tokens + arguments.max_tokens);
  if (tokens.size() >= needed) return tokens;
  throw DataError(fmt::format("{}: found {} tokens, expected at least {} (--prompt-tokens and --max-tokens)",
                              arguments.text.string(), tokens.size(), needed));
}

// Prompts are new each time: nothing is found in the prefix cache. With a text, each stream has the next piece of it.
Run run_streams(Engine& engine, std::int64_t streams, std::int64_t max_tokens, const BenchServeArguments& arguments,
                std::span<const std::int32_t> text, Rng& rng) {
  std::mutex mutex;
  std::condition_variable done;
  std::int64_t unfinished = streams;
  std::string error;
  std::vector<std::vector<SteadyClock::time_point>> times(static_cast<std::size_t>(streams));
  const SteadyClock::time_point begin = SteadyClock::now();
  for (std::int64_t i = 0; i < streams; ++i) {
    EngineRequest request;
    if (text.empty()) {
      for (std::int64_t t = 0; t < arguments.prompt_tokens; ++t) {
        request.prompt.push_back(static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(arguments.vocab_size))));
      }
    } else {
      const std::int64_t pieces = static_cast<std::int64_t>(text.size()) / (arguments.prompt_tokens + arguments.max_tokens);
      const auto piece = text.subspan(static_cast<std::size_t>(i % pieces * (arguments.prompt_tokens + arguments.max_tokens)));
      const auto prompt = piece.first(static_cast<std::size_t>(arguments.prompt_tokens));
      request.prompt.assign(prompt.begin(), prompt.end());
      request.constraint = std::make_unique<GivenText>(piece.subspan(prompt.size(), static_cast<std::size_t>(max_tokens)),
                                                       arguments.vocab_size);
    }
    request.sampling.temperature = arguments.temperature;
    request.logprobs = false;
    request.sampling.seed = rng.next();
    request.max_tokens = max_tokens;
    request.on_event = [&, i](const EngineEvent& event) {
      if (event.kind == EngineEventKind::kToken) times[static_cast<std::size_t>(i)].push_back(SteadyClock::now());
      if (event.kind != EngineEventKind::kDone) return true;
      const std::scoped_lock lock(mutex);
      if (event.reason == FinishReason::kError) error = event.error;
      --unfinished;
      done.notify_one();
      return true;
    };
    if (!engine.submit(std::move(request))) {
      const std::scoped_lock lock(mutex);
      error = "the engine refused a request";
      --unfinished;
    }
  }
  std::unique_lock lock(mutex);
  done.wait(lock, [&] { return unfinished == 0; });
  if (!error.empty()) throw NumericalError(error);
  Run run;
  run.total = seconds_since(begin);
  std::vector<double> first, between;
  for (const std::vector<SteadyClock::time_point>& stream : times) {
    first.push_back(seconds_between(begin, stream.front()));
    for (std::size_t t = 1; t < stream.size(); ++t) between.push_back(seconds_between(stream[t - 1], stream[t]));
  }
  run.first_token = median(first);
  run.between_tokens = median(between);
  return run;
}

std::int64_t stream_count(const std::string& text) {
  std::int64_t streams = 0;
  for (const char c : text) streams = c >= '0' && c <= '9' && streams < 100'000 ? 10 * streams + (c - '0') : -1'000'000;
  if (streams < 1) throw ConfigError(fmt::format("--streams has '{}', expected numbers of at least 1 between commas", text));
  return streams;
}

ExitCode bench_serve(BenchServeArguments& arguments, Context& context) {
  std::vector<std::int64_t> counts;
  for (const std::string& text : arguments.streams) counts.push_back(stream_count(text));
  if (arguments.prompt_tokens + arguments.max_tokens > arguments.sequence_len) {
    throw ConfigError(fmt::format("--prompt-tokens {} and --max-tokens {} exceed a context of {}", arguments.prompt_tokens,
                                  arguments.max_tokens, arguments.sequence_len));
  }
  const std::vector<std::int32_t> text = read_text(arguments);
  const GptConfig config = GptConfig::from_depth(arguments.depth, arguments.vocab_size, arguments.sequence_len);
  config.validate();
  const Runtime runtime = select_runtime(arguments.runtime, Workload::kDecoding);
  EngineOptions options;
  options.fp8_cache = arguments.kv_cache.fp8(runtime);
  auto model = std::make_unique<Gpt>(config, runtime.dtype, runtime.device, Purpose::kInference);
  model->init_weights(kSeed);
  options.max_running = *std::max_element(counts.begin(), counts.end());
  options.max_queued = options.max_running;
  if (arguments.max_batch_tokens > 0) options.max_batch_tokens = std::max(arguments.max_batch_tokens, options.max_running);
  options.speculative = arguments.speculative.get();
  if (!text.empty()) options.prefix_cache = false;  // the same prompts come again
  Engine engine(std::move(model), options);
  engine.start();
  Rng rng(kSeed);
  run_streams(engine, 1, arguments.max_tokens, arguments, text, rng);  // warm

  ordered_json report = {{"benchmark", "serve"},
                         {"depth", arguments.depth},
                         {"vocab_size", arguments.vocab_size},
                         {"parameters", config.parameter_count()},
                         {"dtype", dtype_name(runtime.dtype)},
                         {"kv_cache_dtype", arguments.kv_cache.dtype},
                         {"threads", runtime.threads},
                         {"device", runtime.description},
                         {"prompt_tokens", arguments.prompt_tokens},
                         {"max_tokens", arguments.max_tokens},
                         {"speculative", arguments.speculative.value}};
  const auto best_of = [&](std::int64_t streams, std::int64_t max_tokens) {
    Run best;
    for (std::int64_t i = 0; i < arguments.steps && !interrupt_requested(); ++i) {
      const Run run = run_streams(engine, streams, max_tokens, arguments, text, rng);
      if (i == 0 || run.total < best.total) best = run;
    }
    return best;
  };
  const Run prompt_only = best_of(1, 1);
  report["prefill_tokens_per_second"] = static_cast<double>(arguments.prompt_tokens) / prompt_only.total;
  if (!context.json) {
    fmt::print("{}\nprefill of one prompt: {:.0f} tokens/s\n{:>8} {:>12} {:>12} {:>16}\n", runtime.description,
               static_cast<double>(arguments.prompt_tokens) / prompt_only.total, "streams", "tokens/s", "TTFT ms",
               "between tokens ms");
  }
  for (const std::int64_t streams : counts) {
    const EngineStats before = engine.stats();
    const Run run = best_of(streams, arguments.max_tokens);
    if (interrupt_requested()) return ExitCode::kPartial;
    const double rate = static_cast<double>(streams * arguments.max_tokens) / run.total;
    const EngineStats after = engine.stats();
    report["runs"].push_back({{"streams", streams},
                              {"drafted_tokens", after.drafted_tokens - before.drafted_tokens},
                              {"accepted_tokens", after.accepted_tokens - before.accepted_tokens},
                              {"tokens_per_second", rate},
                              {"ttft_ms", 1e3 * run.first_token},
                              {"between_tokens_ms", 1e3 * run.between_tokens}});
    if (!context.json)
      fmt::print("{:>8} {:>12.1f} {:>12.1f} {:>16.2f}\n", streams, rate, 1e3 * run.first_token, 1e3 * run.between_tokens);
  }
  fmt::print("{}\n", report.dump());
  return ExitCode::kOk;
}

}  // namespace

void add_bench_serve(CommandLine& command_line) {
  auto arguments = std::make_shared<BenchServeArguments>();
  Subcommand& command = command_line.add(
      "bench serve",
      "Measure the batching engine without HTTP: output tokens per second with several numbers of concurrent "
      "requests. The time to process the prompts is included. The fastest of --steps runs is reported.",
      "nanochat bench serve --depth 12 --streams 1,8,32");
  command.option("depth", &arguments->depth, "Number of layers. The model is 64 times as wide.").at_least(1);
  command.option("sequence_len", &arguments->sequence_len, "Context length of the model in tokens.").at_least(2);
  command.option("vocab_size", &arguments->vocab_size, "Number of tokens in the vocabulary.").at_least(1);
  command.option("streams", &arguments->streams, "Numbers of concurrent requests, each measured separately.").comma_separated();
  command.option("prompt_tokens", &arguments->prompt_tokens, "Number of tokens in each prompt.").at_least(1);
  command.option("max_tokens", &arguments->max_tokens, "Number of tokens in each answer.").at_least(1);
  command
      .option("max_batch_tokens", &arguments->max_batch_tokens,
              "Maximum number of tokens in one forward pass; 0 uses 256 on a CPU and 8192 on a GPU.")
      .at_least(0);
  command.option("temperature", &arguments->temperature, "Sampling temperature; 0 always takes the most likely token.")
      .at_least(0);
  command.option("steps", &arguments->steps, "Number of timed runs.").at_least(1);
  command.option(
      "text", &arguments->text,
      "Text file to write instead of random tokens: each prompt and its answer are consecutive pieces of it. Shows what "
      "--speculative does with such text.");
  command.option("tokenizer", &arguments->tokenizer, "Tokenizer for --text. Its vocabulary replaces --vocab-size.");
  arguments->speculative.declare(command);
  arguments->kv_cache.declare(command);
  declare_runtime_options(command.options(), arguments->runtime);
  command.run([arguments](Context& context) { return bench_serve(*arguments, context); });
}

}  // namespace nanochat::cli
