// nanochat bench train | infer: times a shape on random weights.
#include <sys/resource.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <optional>

#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "bench_conversations.h"
#include "command_line.h"
#include "commands.h"
#include "core/elapsed.h"
#include "core/format.h"
#include "core/interrupt.h"
#include "core/random.h"
#include "data/batches/batch.h"
#include "inference/generator.h"
#include "kv_cache_option.h"
#include "model/gpt.h"
#include "ops/device.h"
#include "ops/peak.h"
#include "ops/profile.h"
#include "optim/optimizer.h"
#include "optim/rank_plan.h"
#include "optim/sharded_weights.h"
#include "ranks.h"
#include "runtime/memory_limits.h"
#include "runtime/runtime.h"
#include "speculative_option.h"
#include "tokenizer/load.h"
#include "tokenizer/tokenizer.h"
#include "training/trainer/memory_check.h"
#include "training/trainer/same_everywhere.h"
#include "training/trainer/train_step.h"
#include "training/trainer/trainer_options.h"

namespace nanochat::cli {
namespace {

using nlohmann::ordered_json;

struct BenchArguments {
  std::string recipe{architecture_name(Architecture::kNanochat2025_12)};
  std::int64_t depth = 4;
  std::int64_t sequence_len = 256;
  std::int64_t device_batch_size = 16;  // train: or kAutoDeviceBatch
  std::int64_t micro_batches = 1;  // train only
  bool recompute = false;          // train only
  bool deterministic = false;      // train only
  bool fp8 = false;                // train only
  std::string shard = TrainerOptions().shard;  // train only
  std::int64_t vocab_size = 4096;
  std::int64_t steps = 10;
  std::int64_t warmup = 2;
  std::int64_t prompt_tokens = 0;  // infer only; 0: half the context
  std::int64_t max_tokens = 64;    // infer only
  std::int64_t period = 0;         // infer only; 0: text that does not repeat
  SpeculativeOption speculative;   // infer only
  KvCacheOption kv_cache;          // infer only
  std::filesystem::path profile;
  std::string mixture;             // train only: conversations instead of random tokens
  std::filesystem::path tokenizer;
  RuntimeOptions runtime;
};

constexpr std::uint64_t kSeed = 42;

// Until the device has done it.
double seconds_of(at::Device device, const std::function<void()>& work) {
  const auto begin = SteadyClock::now();
  work();
  ops::synchronize(device);
  return seconds_since(begin);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

// The most memory this process has held on the device, in bytes.
std::int64_t peak_memory(at::Device device) {
  if (!device.is_cpu()) return ops::peak_device_memory(device);
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return std::int64_t{usage.ru_maxrss} * 1024;
}

at::Tensor random_ids(std::int64_t rows, std::int64_t columns, std::int64_t vocab_size, Rng& rng) {
  at::Tensor ids = at::full({rows, columns}, 0, at::kInt);
  std::generate_n(ids.data_ptr<std::int32_t>(), ids.numel(),
                  [&] { return static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(vocab_size))); });
  return ids;
}

GptConfig config_of(const BenchArguments& arguments) {
  const GptConfig config = GptConfig::from_depth(arguments.depth, arguments.vocab_size, arguments.sequence_len,
                                                 architecture_of_name(arguments.recipe).value());
  config.validate();
  return config;
}

// What both tables begin with.
ordered_json describe(const char* what, const BenchArguments& arguments, const GptConfig& config, const Runtime& runtime) {
  return {{"benchmark", what},
          {"recipe", arguments.recipe},
          {"depth", arguments.depth},
          {"sequence_len", arguments.sequence_len},
          {"device_batch_size", arguments.device_batch_size},
          {"vocab_size", config.vocab_size},
          {"parameters", config.parameter_count()},
          {"dtype", dtype_name(runtime.dtype)},
          {"threads", runtime.threads},
          {"device", runtime.description}};
}

using Table = std::vector<std::pair<std::string, std::string>>;

void print(const Table& table, const ordered_json& report, const Context& context) {
  if (!context.json) {
    for (const auto& [name, value] : table) fmt::print("{:<20} {:>20}\n", name, value);
  }
  fmt::print("{}\n", report.dump());
}

void begin_table(Table& table, const GptConfig& config, const Runtime& runtime) {
  table.emplace_back("parameters", with_commas(config.parameter_count()));
  table.emplace_back("dtype", dtype_name(runtime.dtype));
  table.emplace_back("device", runtime.device.is_cuda() ? runtime.device.str() : fmt::format("{} threads", runtime.threads));
}

std::string rate(double per_second) { return with_commas(std::llround(per_second)); }

void check_profile(const BenchArguments& arguments, const Runtime& runtime) {
  if (arguments.profile.empty() || runtime.device.is_cuda()) return;
  throw ConfigError("--profile lists the kernels of a GPU, and this runs on the CPU");
}

// One step under the profiler: the kernels by time, as a table on standard error, and the trace.
void print_profile(const std::filesystem::path& trace, const std::function<void()>& step) {
  const std::vector<ops::KernelTime> kernels = ops::profile_gpu(step, trace);
  double total = 0.0;
  for (const ops::KernelTime& kernel : kernels) total += kernel.milliseconds;
  constexpr std::size_t kRows = 40, kNameWidth = 100;
  fmt::print(stderr, "{:>10} {:>6} {:>7}  kernel\n", "ms", "%", "calls");
  for (std::size_t i = 0; i < std::min(kRows, kernels.size()); ++i) {
    fmt::print(stderr, "{:>10.3f} {:>6.2f} {:>7}  {}\n", kernels[i].milliseconds, 100.0 * kernels[i].milliseconds / total,
               kernels[i].calls, kernels[i].name.substr(0, kNameWidth));
  }
  fmt::print(stderr, "{:>10.3f} {:>6} {:>7}  all kernels\n", total, "", "");
}

// ------------------------------------------------------------------------------------------------------------ train

TokenBatch random_batch(const BenchArguments& arguments, std::int64_t vocab_size, Rng& rng) {
  TokenBatch batch{arguments.device_batch_size, arguments.sequence_len, {}, {}, {}};
  for (std::vector<std::int32_t>* part : {&batch.inputs, &batch.targets}) {
    const at::Tensor ids = random_ids(batch.rows, batch.sequence_len, vocab_size, rng);
    part->assign(ids.const_data_ptr<std::int32_t>(), ids.const_data_ptr<std::int32_t>() + ids.numel());
  }
  return batch;
}

void add_conversations(const BenchConversations& conversations, double rows_per_second, Table& table, ordered_json& report) {
  const double trained = rows_per_second * conversations.conversations_of_a_row();
  report.update({{"conversations", conversations.conversations()},
                 {"tokens_per_conversation", conversations.tokens_each()},
                 {"conversations_per_second", trained},
                 {"rendered_per_second", conversations.rendered_per_second()},
                 {"packed_per_second", conversations.packed_per_second()},
                 {"loaded_per_second", conversations.loaded_per_second()}});
  table.emplace_back("conversations", fmt::format("{} of {:.0f} tokens", with_commas(conversations.conversations()),
                                                  conversations.tokens_each()));
  table.emplace_back("trained on", rate(trained) + " conversations/s");
  table.emplace_back("rendered, packed", rate(conversations.loaded_per_second()) + " conversations/s");
}

TrainerOptions trainer_options(const BenchArguments& arguments) {
  TrainerOptions options;
  options.recompute = arguments.recompute;
  options.fp8 = arguments.fp8;
  options.shard = arguments.shard;
  return options;
}

// Of each of so many processes.
std::int64_t estimated_memory(const BenchArguments& arguments, const GptConfig& config, const Runtime& runtime, int ranks) {
  const TrainingShape shape = training_shape(trainer_options(arguments), config, arguments.device_batch_size,
                                             runtime.dtype == at::kFloat ? 4 : 2, runtime.device.is_cuda());
  return estimate_rank_memory(config, shape, ranks).total();
}

// Throws OutOfMemoryError where the shape takes more memory than the device has free.
void require_memory(const BenchArguments& arguments, const GptConfig& config, const Runtime& runtime,
                    Communicator& communicator) {
  const std::int64_t needed = estimated_memory(arguments, config, runtime, communicator.size());
  const std::int64_t available = available_memory_bytes(runtime.device) /
                                 (runtime.device.is_cuda() ? 1 : communicator.local_size());
  communicator.barrier();  // before anybody allocates
  if (needed <= available) return;
  throw OutOfMemoryError(
      fmt::format("this shape takes about {}, but {} are available; lower --depth, "
                  "--device-batch-size, --sequence-len or --vocab-size, or use --recompute",
                  human_bytes(static_cast<double>(needed)), human_bytes(static_cast<double>(available))));
}

// Seconds of each step that was timed.
struct TrainTimes {
  std::vector<double> passes, updates, steps;
  double loss = 0.0;  // of the last step
};

// `load` makes the batches of the next step, `train` takes the step.
TrainTimes time_training(const BenchArguments& arguments, at::Device device, ProgressReporter& progress,
                         Communicator& communicator, const std::function<void()>& load,
                         const std::function<StepResult()>& train) {
  TrainTimes times;
  const auto interrupted = [&] { return largest_over_ranks(communicator, std::int64_t{interrupt_requested()}) > 0; };
  progress.start("bench train", arguments.warmup + arguments.steps, "steps");
  for (std::int64_t i = 0; i < arguments.warmup + arguments.steps && !interrupted(); ++i) {
    StepResult result;
    const double loading = seconds_of(device, load);
    const double training = seconds_of(device, [&] { result = train(); });
    progress.advance(1);
    times.loss = result.loss;
    if (i < arguments.warmup) continue;
    times.passes.push_back(loading + result.forward_backward_seconds);
    times.updates.push_back(training - result.forward_backward_seconds);
    times.steps.push_back(loading + training);
  }
  progress.finish();
  return times;
}

void print_training(const BenchArguments& arguments, const GptConfig& config, const Runtime& runtime, const TrainTimes& times,
                    ops::PeakRate& peak, const BenchConversations* conversations, Communicator& communicator,
                    const Context& context) {
  const std::int64_t memory = largest_over_ranks(communicator, peak_memory(runtime.device));
  if (!communicator.is_root()) return;
  const double step = median(times.steps);
  const std::int64_t rows = arguments.device_batch_size * arguments.micro_batches * communicator.size();
  const double rows_per_second = static_cast<double>(rows) / step;
  const double tokens_per_second = rows_per_second * static_cast<double>(arguments.sequence_len);
  const double mfu = peak.utilization(tokens_per_second * config.flops_per_token() / communicator.size());
  ordered_json report = describe("train", arguments, config, runtime);
  report.update({{"steps", times.steps.size()},
                 {"tokens_per_second", tokens_per_second},
                 {"step_ms", 1e3 * step},
                 {"fastest_step_ms", 1e3 * *std::min_element(times.steps.begin(), times.steps.end())},
                 {"forward_backward_ms", 1e3 * median(times.passes)},
                 {"optimizer_ms", 1e3 * median(times.updates)},
                 {"peak_flops", peak.flops()},
                 {"mfu", mfu},
                 {"loss", times.loss},
                 {"world_size", communicator.size()},
                 {"micro_batches", arguments.micro_batches},
                 {"shard", arguments.shard},
                 {"recompute", arguments.recompute},
                 {"deterministic", arguments.deterministic},
                 {"fp8", arguments.fp8},
                 {"memory_bytes", memory},
                 {"estimated_memory_bytes", estimated_memory(arguments, config, runtime, communicator.size())}});
  Table table;
  begin_table(table, config, runtime);
  if (!communicator.alone()) table.emplace_back("processes", std::to_string(communicator.size()));
  table.emplace_back("tokens/s", rate(tokens_per_second));
  table.emplace_back("step", fmt::format("{:.1f} ms", 1e3 * step));
  table.emplace_back("forward, backward", fmt::format("{:.1f} ms", 1e3 * median(times.passes)));
  table.emplace_back("optimizer", fmt::format("{:.1f} ms", 1e3 * median(times.updates)));
  table.emplace_back("matrix rate", fmt::format("{:.3g} TFLOP/s", peak.flops() / 1e12));
  table.emplace_back("MFU", fmt::format("{:.1f} %", 100.0 * mfu));
  table.emplace_back("memory", human_bytes(static_cast<double>(memory)));
  if (conversations != nullptr) add_conversations(*conversations, rows_per_second, table, report);
  print(table, report, context);
}

// Of each process its micro-batches, in the order in which one process would have those of all.
std::vector<TokenBatch> random_batches(const BenchArguments& arguments, std::int64_t vocab_size,
                                       const Communicator& communicator) {
  Rng rng(kSeed);
  std::vector<TokenBatch> mine;
  for (std::int64_t i = 0; i < arguments.micro_batches * communicator.size(); ++i) {
    TokenBatch batch = random_batch(arguments, vocab_size, rng);
    if (i % communicator.size() == communicator.rank()) mine.push_back(std::move(batch));
  }
  return mine;
}

ExitCode bench_train(BenchArguments arguments, Ranks& ranks, Context& context) {
  GptConfig config = config_of(arguments);
  Communicator& communicator = ranks.communicator();
  Runtime runtime = select_runtime(arguments.runtime, Workload::kTraining,
                                   {communicator.local_rank(), communicator.local_size()});
  set_dtype(runtime, same_dtype(communicator, runtime.dtype));
  std::shared_ptr<const Tokenizer> tokenizer;
  if (!arguments.mixture.empty()) {
    if (arguments.tokenizer.empty()) throw ConfigError("--mixture needs a --tokenizer to render conversations with");
    tokenizer = load_tokenizer(arguments.tokenizer);
    config.vocab_size = tokenizer->vocab_size();
  }
  if (arguments.device_batch_size == kAutoDeviceBatch)
    arguments.device_batch_size = choose_device_batch(trainer_options(arguments), config, runtime, communicator);
  std::optional<BenchConversations> conversations;
  if (tokenizer) {
    conversations.emplace(arguments.mixture, *tokenizer, arguments.device_batch_size, arguments.sequence_len);
  }
  if (arguments.fp8) require_fp8(runtime);
  require_memory(arguments, config, runtime, communicator);
  check_profile(arguments, runtime);
  const ops::DeterministicScope deterministic(arguments.deterministic && runtime.device.is_cuda());
  ops::PeakRate peak(runtime.device, runtime.dtype);
  const bool sharded = arguments.shard == "full" && !communicator.alone();
  Gpt model(config, runtime.dtype, runtime.device, Purpose::kTraining, sharded ? Residency::kShared : Residency::kWhole);
  std::optional<ShardedWeights> shards;
  if (sharded) shards.emplace(model, communicator);
  model.set_recompute(arguments.recompute);
  model.set_fp8(arguments.fp8);
  model.init_weights(kSeed);
  model.zero_grad();
  // As a training by default has it: Newton-Schulz in the faster precision.
  OptimizerOptions options = trainer_options(arguments).optimizer_options(runtime, config);
  options.muon.dtype = options.normuon.dtype = same_dtype(communicator, options.muon.dtype);
  Optimizer optimizer(model.parameters(), config.n_embd, options, communicator, shards ? &*shards : nullptr);
  std::vector<TokenBatch> batches = random_batches(arguments, config.vocab_size, communicator);
  const auto load = [&] {
    for (TokenBatch& batch : batches) {
      if (conversations) batch = conversations->next();
    }
  };
  const auto train = [&] { return train_step(model, optimizer, batches, {}); };
  const TrainTimes times = time_training(arguments, runtime.device, ranks.progress(context), communicator, load, train);
  if (times.steps.empty()) return ExitCode::kPartial;
  if (!arguments.profile.empty()) {
    const auto step = [&] {
      load();
      train();
      optimizer.wait_for_weights();  // which have no next step to arrive beneath
      ops::synchronize(runtime.device);
    };
    ranks.is_root() ? print_profile(arguments.profile, step) : step();
  }
  print_training(arguments, config, runtime, times, peak, conversations ? &*conversations : nullptr, communicator, context);
  optimizer.wait_for_weights();
  return ExitCode::kOk;
}

// ------------------------------------------------------------------------------------------------------------ infer

// Seconds of each run that was timed; `alone`: the prompt of a run that has no other.
struct InferTimes {
  std::vector<double> prefill, decode, alone;
};

InferTimes time_inference(const BenchArguments& arguments, Gpt& model, const std::vector<std::vector<std::int32_t>>& prompts,
                          const GenerationOptions& options, Context& context) {
  GenerationOptions first_only = options;
  first_only.max_tokens = 1;
  InferTimes times;
  context.progress->start("bench infer", arguments.warmup + arguments.steps, "runs");
  for (std::int64_t i = 0; i < arguments.warmup + arguments.steps && !interrupt_requested(); ++i) {
    const std::vector<Generation> batch = generate(model, prompts, options);
    const std::vector<Generation> single = generate(model, {prompts[0]}, first_only);
    context.progress->advance(1);
    if (i < arguments.warmup || interrupt_requested()) continue;
    double prefilled = 0.0;
    for (const Generation& generation : batch) prefilled = std::max(prefilled, generation.prefill_seconds);
    const Generation& last = batch.back();
    times.prefill.push_back(prefilled);
    times.decode.push_back(last.prefill_seconds + last.decode_seconds - prefilled);
    times.alone.push_back(single[0].prefill_seconds);
  }
  context.progress->finish();
  return times;
}

void print_inference(const BenchArguments& arguments, const GptConfig& config, const Runtime& runtime,
                     std::int64_t prompt_tokens, std::int64_t max_tokens, const InferTimes& times, const Context& context) {
  const auto rows = static_cast<double>(arguments.device_batch_size);
  const double prefill_rate = rows * static_cast<double>(prompt_tokens) / median(times.prefill);
  const double step = median(times.decode) / static_cast<double>(max_tokens - 1);
  const double decode_rate = rows / step;
  const double first_token_ms = 1e3 * median(times.alone);
  const std::int64_t memory = peak_memory(runtime.device);
  ordered_json report = describe("infer", arguments, config, runtime);
  report.update({{"prompt_tokens", prompt_tokens},
                 {"generated_tokens", max_tokens},
                 {"period", arguments.period},
                 {"speculative", arguments.speculative.value},
                 {"kv_cache_dtype", arguments.kv_cache.dtype},
                 {"prefill_tokens_per_second", prefill_rate},
                 {"decode_tokens_per_second", decode_rate},
                 {"decode_step_ms", 1e3 * step},
                 {"ttft_ms", first_token_ms},
                 {"memory_bytes", memory}});
  Table table;
  begin_table(table, config, runtime);
  table.emplace_back("prefill tokens/s", rate(prefill_rate));
  table.emplace_back("decode tokens/s", rate(decode_rate));
  table.emplace_back("decode step", fmt::format("{:.2f} ms", 1e3 * step));
  table.emplace_back("TTFT, one prompt", fmt::format("{:.1f} ms", first_token_ms));
  table.emplace_back("memory", human_bytes(static_cast<double>(memory)));
  print(table, report, context);
}

// Makes the model write a text that repeats itself: after token t comes t + 1, and after the last of `period` tokens the first
// of them. The head's row of a token is the embedding of the token before it, and the layers add nothing in a model that was
// not trained; they take as long as any.
void make_periodic(Gpt& model, std::int64_t period) {
  constexpr double kScore = 30.0;  // of the next token, before the logits' soft cap; of others about 1
  const GptConfig& config = model.config();
  at::Tensor embedding, head;
  for (Parameter& parameter : model.parameters()) {
    if (parameter.spec.slot == WeightSlot::kTokenEmbedding) embedding = parameter.value;
    if (parameter.spec.slot == WeightSlot::kHead) head = parameter.value;
  }
  std::vector<std::int64_t> before(static_cast<std::size_t>(head.size(0)));
  for (std::int64_t token = 0; token < head.size(0); ++token) {
    const std::int64_t first = token / period * period;
    const std::int64_t last = std::min(first + period, config.vocab_size) - 1;
    before[static_cast<std::size_t>(token)] = std::min(token == first ? last : token - 1, embedding.size(0) - 1);
  }
  const at::Tensor rows = embedding.index_select(0, at::tensor(before, at::kLong).to(embedding.device()));
  head.copy_(rows.mul(kScore / static_cast<double>(config.n_embd)));
  model.refresh_compute();
}

ExitCode bench_infer(const BenchArguments& arguments, Context& context) {
  const GptConfig config = config_of(arguments);
  const std::int64_t prompt_tokens = arguments.prompt_tokens > 0 ? arguments.prompt_tokens
                                                                 : std::max<std::int64_t>(1, arguments.sequence_len / 2);
  const std::int64_t max_tokens = std::min(arguments.max_tokens, arguments.sequence_len - prompt_tokens);
  if (max_tokens < 2) {
    throw ConfigError(fmt::format("--prompt-tokens {} leaves {} of a context of {}, expected at least 2 to generate",
                                  prompt_tokens, max_tokens, arguments.sequence_len));
  }
  const Runtime runtime = select_runtime(arguments.runtime, Workload::kDecoding);
  check_profile(arguments, runtime);
  GenerationOptions options;
  options.fp8_cache = arguments.kv_cache.fp8(runtime);
  Gpt model(config, runtime.dtype, runtime.device, Purpose::kInference);
  model.init_weights(kSeed);
  if (arguments.period > 0) make_periodic(model, arguments.period);
  Rng rng(kSeed);
  std::vector<std::vector<std::int32_t>> prompts;
  for (std::int64_t row = 0; row < arguments.device_batch_size; ++row) {
    const at::Tensor ids = random_ids(1, prompt_tokens, config.vocab_size, rng);
    prompts.emplace_back(ids.const_data_ptr<std::int32_t>(), ids.const_data_ptr<std::int32_t>() + prompt_tokens);
  }
  options.sampling.temperature = arguments.period > 0 ? 0.0 : 1.0;
  options.speculative = arguments.speculative.get();
  options.max_tokens = max_tokens;
  options.max_running = arguments.device_batch_size;
  const InferTimes times = time_inference(arguments, model, prompts, options, context);
  if (times.prefill.empty()) return ExitCode::kPartial;
  if (!arguments.profile.empty()) {
    print_profile(arguments.profile, [&] {
      generate(model, prompts, options);
      ops::synchronize(runtime.device);
    });
  }
  print_inference(arguments, config, runtime, prompt_tokens, max_tokens, times, context);
  return ExitCode::kOk;
}

Subcommand& add_shape(CommandLine& command_line, const char* path, const char* summary, const char* example,
                      BenchArguments& arguments, bool trains) {
  Subcommand& command = command_line.add(path, summary, example);
  command.option("recipe", &arguments.recipe, "Version of the Python nanochat whose architecture and optimizer to measure.")
      .one_of({"nanochat-2025-12", "nanochat-2026-07"});
  command.option("depth", &arguments.depth, "Number of layers. The model is 64 times as wide.").at_least(1);
  command.option("sequence_len", &arguments.sequence_len, "Number of tokens in a row.").at_least(1);
  const std::string rows = "Number of rows in a forward pass.";
  Option& batch = command
                      .option("device_batch_size", &arguments.device_batch_size,
                              trains ? rows + " auto uses the largest power of two whose estimated memory fits." : rows)
                      .at_least(1);
  if (trains) batch.or_word("auto", kAutoDeviceBatch);
  command.option("vocab_size", &arguments.vocab_size, "Number of tokens in the vocabulary.").at_least(1);
  command.option("steps", &arguments.steps, "Number of timed runs; the median is reported.").at_least(1);
  command.option("warmup", &arguments.warmup, "Number of runs before timing starts.").at_least(0);
  declare_runtime_options(command.options(), arguments.runtime);
  return command;
}

}  // namespace

void add_bench(CommandLine& command_line) {
  command_line.group("bench", "Measure the speed of models of any shape, with random weights.");
  auto train = std::make_shared<BenchArguments>();
  Subcommand& training = add_shape(
      command_line, "bench train",
      "Measure training steps: forward, backward and optimizer. MFU is relative to the data-sheet rate of a GPU, "
      "or to the measured rate of a large matrix product in the same dtype on a CPU. Started as several processes, for "
      "example by `nanochat launch`, it measures data-parallel training; tokens/s is the sum over all of them.",
      "nanochat bench train --depth 4 --sequence-len 256 --device-batch-size 16 --vocab-size 4096", *train,
      /*trains=*/true);
  training.option("recompute", &train->recompute,
                  "Keep only the input of each layer in the forward pass, and compute the rest again in the backward pass.");
  training.option("profile", &train->profile,
                  "GPU only: run one more step under a profiler, list its kernels on standard error and write a Chrome trace "
                  "to this file.");
  training.option("mixture", &train->mixture,
                  "Train on packed conversations, as `sft` does, instead of random tokens. A mixture of data sets (tasks) as a "
                  "JSON file or JSON text; docs/data.md lists the tasks and their keys.");
  training.option("tokenizer", &train->tokenizer,
                  "Tokenizer for the conversations of --mixture. Its vocabulary replaces --vocab-size.");
  training
      .option("micro_batches", &train->micro_batches,
              "Number of forward and backward passes per step whose gradients are accumulated.")
      .at_least(1);
  declare_fp8_option(training.options(), train->fp8);
  declare_deterministic_option(training.options(), train->deterministic);
  declare_shard_option(training.options(), train->shard);
  auto distributed = std::make_shared<CommunicatorOptions>(communicator_options("bench train"));
  declare_distributed_options(training.options(), *distributed);
  training.run([train, distributed, &training](Context& context) {
    Ranks ranks(*distributed, train->runtime, shared_configuration(training));
    return bench_train(*train, ranks, context);
  });

  auto infer = std::make_shared<BenchArguments>();
  infer->steps = 3;
  infer->warmup = 1;
  Subcommand& command = add_shape(
      command_line, "bench infer",
      "Measure generation: processing of the prompts (prefill), then one token at a time for all rows (decode). "
      "The time to first token (TTFT) is measured with a single prompt.",
      "nanochat bench infer --depth 4 --sequence-len 256 --device-batch-size 16 --vocab-size 4096", *infer,
      /*trains=*/false);
  command.option("prompt_tokens", &infer->prompt_tokens, "Number of tokens in each prompt; 0 uses half of --sequence-len.")
      .at_least(0);
  command.option("max_tokens", &infer->max_tokens, "Maximum number of tokens to generate; the context may allow fewer.")
      .at_least(2);
  command
      .option("period", &infer->period,
              "Make the model write a text that repeats itself every N tokens, greedily, to measure --speculative; 0 samples "
              "a text that does not repeat.")
      .at_least(0);
  infer->speculative.declare(command);
  infer->kv_cache.declare(command);
  command.option(
      "profile", &infer->profile,
      "GPU only: generate once more under a profiler, list the kernels on standard error and write a Chrome trace to "
      "this file.");
  command.run([infer](Context& context) { return bench_infer(*infer, context); });
  add_bench_comm(command_line);
  add_bench_serve(command_line);
}

}  // namespace nanochat::cli
