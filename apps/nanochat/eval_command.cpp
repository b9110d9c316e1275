#include <algorithm>
#include <iostream>
#include <map>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include "checkpoint/checkpoint.h"
#include "checkpoint/run_folder.h"
#include "command_line.h"
#include "commands.h"
#include "core/atomic_file.h"
#include "core/elapsed.h"
#include "core/interrupt.h"
#include "core/log.h"
#include "data/batches/loader.h"
#include "data/rows/paths.h"
#include "data/shards/corpus.h"
#include "eval_tables.h"
#include "ranks.h"
#include "evaluation/chat_eval.h"
#include "evaluation/chat_tasks.h"
#include "evaluation/completion.h"
#include "evaluation/core_eval.h"
#include "evaluation/sandbox.h"
#include "evaluation_files.h"
#include "reader_options.h"
#include "runtime/runtime.h"
#include "training/trainer/bits_per_byte.h"
#include "training/trainer/same_everywhere.h"

namespace nanochat::cli {
namespace {

namespace fs = std::filesystem;

struct EvalConfig {
  fs::path model, output_dir;
  std::vector<std::string> data_dir, benchmarks{"completion"}, custom_tasks, task_files, compare;
  RuntimeOptions runtime;
  std::int64_t device_batch_size = 50, batch_tokens = 0, max_per_task = -1, eval_tokens = 1'000'000;
  std::int64_t num_samples = 1, max_tokens = 512, top_k = 50;
  double temperature = 0.0;
  std::uint64_t seed = 42;
  std::string truncate = "longest", text_column;
  int rank = 0, world_size = 1;
  bool show = false, resume = false, save_samples = false, allow_unsandboxed = false;
};

bool asks_for(const EvalConfig& config, const std::string& benchmark) {
  return std::find(config.benchmarks.begin(), config.benchmarks.end(), benchmark) != config.benchmarks.end();
}

// Where the model writes answers it decodes; elsewhere whole texts pass through it, as in training.
Workload workload_of(const EvalConfig& config) {
  const auto only_scored = [](const std::string& name) {
    return name == "core" || name == "bpb" || name == "mmlu" || name.starts_with("arc-");
  };
  const bool scored = config.custom_tasks.empty() &&
                      std::all_of(config.benchmarks.begin(), config.benchmarks.end(), only_scored);
  return scored ? Workload::kTraining : Workload::kDecoding;
}

// A checkpoint of a run is scored in the run's own folder.
fs::path output_folder(const EvalConfig& config, const fs::path& checkpoint) {
  if (!config.output_dir.empty()) return config.output_dir;
  const fs::path folder = fs::is_directory(checkpoint) ? checkpoint : checkpoint.parent_path();
  if (folder.parent_path().filename() != "checkpoints") return {};
  return folder.parent_path().parent_path() / "eval" / folder.filename();
}

class Evaluator {
 public:
  Evaluator(const EvalConfig& config, Context& context, Communicator& communicator, ProgressReporter& progress)
      : config_(config), context_(context), communicator_(communicator), progress_(progress),
        rank_(communicator.alone() ? config.rank : communicator.rank()),
        world_size_(communicator.alone() ? config.world_size : communicator.size()),
        runtime_(select_runtime(config.runtime, workload_of(config), {communicator.local_rank(), communicator.local_size()})),
        files_(config.data_dir.empty() ? fs::path() : fs::path(config.data_dir.front()), config.task_files, "--data-dir") {
    if (config.rank >= config.world_size) {
      throw ConfigError(fmt::format("--rank is {}, expected a number below --world-size, {}", config.rank, config.world_size));
    }
    if (!communicator.alone() && config.world_size > 1) {
      throw ConfigError("--rank and --world-size share the examples among processes that do not know each other; these do");
    }
    set_dtype(runtime_, same_dtype(communicator, runtime_.dtype));
    for (const std::string& path : config.compare) compared_.emplace_back(path, find_evaluation(path));
    if (asks_for(config, "humaneval") || asks_for(config, "chat")) {
      sandbox_ = std::make_unique<Sandbox>(config.allow_unsandboxed);
      log_info("programs run with {}; Python {}", sandbox_->protections().describe(), sandbox_->python().version);
    }
    loaded_ = load_model(config.model, runtime_.dtype, runtime_.device);
    if (loaded_.tokenizer == nullptr) {
      throw CheckpointError(fmt::format("{}: no tokenizer beside the model; `eval` needs one", loaded_.folder.string()));
    }
    describe();
    output_ = output_folder(config, loaded_.folder);
    if (output_.empty() && (config.resume || config.save_samples || world_size_ > 1)) {
      throw ConfigError("--output-dir is missing: examples are kept there");
    }
    if (!output_.empty()) {
      settings_ = evaluation_.settings;
      settings_["model"] = evaluation_.model;
      if (!communicator.alone()) {
        if (communicator.is_root() && !config.resume) store_ = ExampleStore(output_, settings_, false);  // nothing of before
        communicator.barrier();
      }
      store_ = ExampleStore(output_, settings_, config.resume, rank_, world_size_);
    }
  }

  // Of several processes each goes through its share of the examples, and rank 0 through what all have found.
  ExitCode run() {
    if (communicator_.alone()) return run_all();
    for (const std::string& name : expand_task_names(config_.benchmarks)) {
      if (name != "bpb" && name != "completion") attempt(name, [&] { ask(name); });
    }
    for (const std::string& file : config_.custom_tasks) attempt(file, [&] { ask_custom(file); });
    communicator_.barrier();
    if (!communicator_.is_root()) return ExitCode::kOk;
    evaluation_.results.clear();
    rank_ = 0;
    world_size_ = 1;
    store_ = ExampleStore(output_, settings_, true);
    return run_all();
  }

 private:
  ExitCode run_all() {
    for (const std::string& name : expand_task_names(config_.benchmarks)) attempt(name, [&] { ask(name); });
    for (const std::string& file : config_.custom_tasks) attempt(file, [&] { ask_custom(file); });
    require_a_figure();
    if (!output_.empty() && world_size_ == 1) write_files();
    context_.json ? std::cout << to_json(evaluation_).dump() << '\n' : std::cout << evaluation_table(evaluation_, compared_);
    return finish();
  }

  static EvaluationResult find_evaluation(const fs::path& given) {
    const fs::path path = locate_run(given);
    if (fs::is_regular_file(path)) return read_evaluation(path);
    if (fs::is_regular_file(path / "eval.json")) return read_evaluation(path / "eval.json");
    fs::path newest;
    if (fs::is_directory(path / "eval")) {
      for (const fs::directory_entry& entry : fs::directory_iterator(path / "eval")) {
        if (fs::is_regular_file(entry.path() / "eval.json") && entry.path().filename() > newest.filename())
          newest = entry.path();
      }
    }
    if (newest.empty()) throw DataError(fmt::format("{}: no eval.json there, nor in its folder eval/", path.string()));
    return read_evaluation(newest / "eval.json");
  }

  void describe() {
    const nlohmann::json& state = loaded_.training_state;
    evaluation_.model["checkpoint"] = fs::absolute(loaded_.folder).filename().string();
    if (state.is_object()) {
      for (const char* key : {"stage", "step"}) {
        if (state.contains(key)) evaluation_.model[key] = state[key];
      }
      if (state.contains("sha256")) evaluation_.model["weights_sha256"] = state["sha256"].value("model.safetensors", "");
    }
    evaluation_.model["parameters"] = loaded_.model->config().parameter_count();
    evaluation_.settings = {{"dtype", dtype_name(runtime_.dtype)},
                            {"max_per_task", config_.max_per_task},
                            {"truncate", config_.truncate},
                            {"task_files", config_.task_files},
                            {"num_samples", config_.num_samples},
                            {"max_tokens", config_.max_tokens},
                            {"temperature", config_.temperature},
                            {"top_k", config_.top_k},
                            {"seed", config_.seed}};
  }

  // What files have wrong costs this benchmark, not the others.
  template <class Action>
  void attempt(const std::string& name, const Action& action) {
    if (interrupt_requested()) return;
    try {
      action();
    } catch (const DataError& error) {
      TaskResult failed;
      failed.suite = name == "core" || name == "bpb" || name == "completion" ? name : "chat";
      failed.task = name;
      failed.error = error.what();
      evaluation_.results.push_back(std::move(failed));
    }
  }

  void ask(const std::string& name) {
    if (name == "core") {
      const auto results = evaluate_core(*loaded_.model, *loaded_.tokenizer,
                                         read_core_bundle(files_.core_bundle(), files_.core_tasks()), core_options(), store_,
                                         progress_);
      evaluation_.results.insert(evaluation_.results.end(), results.begin(), results.end());
    } else if (name == "bpb") {
      bits_per_byte();
    } else if (name == "completion") {
      completions();
    } else {
      evaluation_.results.push_back(evaluate_chat_task(
          *loaded_.model, *loaded_.tokenizer, *open_chat_task(name, files_.of(name)), chat_options(), store_, progress_));
    }
  }

  void ask_custom(const fs::path& file) {
    CustomTask task = load_custom_task(file);
    if (task.chat) {
      evaluation_.results.push_back(evaluate_chat_task(*loaded_.model, *loaded_.tokenizer, *task.chat, chat_options(), store_,
                                                       progress_));
      return;
    }
    if (config_.max_per_task > 0 && config_.max_per_task < static_cast<std::int64_t>(task.rows.size())) {
      task.rows.resize(static_cast<std::size_t>(config_.max_per_task));
    }
    TaskResult result = evaluate_core_task(*loaded_.model, *loaded_.tokenizer, task.base, task.rows, core_options(), store_,
                                           progress_);
    result.suite = "custom";
    evaluation_.results.push_back(std::move(result));
  }

  ScoringOptions scoring() const {
    ScoringOptions options = default_scoring(runtime_.device);
    if (config_.batch_tokens > 0) options.batch_tokens = config_.batch_tokens;
    return options;
  }

  CoreOptions core_options() const {
    CoreOptions options;
    options.scoring = scoring();
    options.max_per_task = config_.max_per_task;
    if (config_.truncate == "context") options.max_prompt_tokens = loaded_.model->config().sequence_len;
    options.rank = rank_;
    options.world = world_size_;
    options.save_samples = config_.save_samples;
    return options;
  }

  ChatOptions chat_options() const {
    ChatOptions options;
    options.scoring = scoring();
    options.max_examples = config_.max_per_task;
    options.num_samples = config_.num_samples;
    options.max_tokens = config_.max_tokens;
    options.temperature = config_.temperature;
    options.top_k = config_.top_k;
    options.seed = config_.seed;
    options.max_running = config_.device_batch_size;
    options.sandbox = sandbox_.get();
    options.rank = rank_;
    options.world = world_size_;
    options.save_samples = config_.save_samples;
    return options;
  }

  // Of both splits of token shards, or of text.
  void bits_per_byte() {
    std::vector<std::string> paths = config_.data_dir;
    if (const fs::path* named = files_.named("bpb")) paths = {named->string()};
    if (paths.empty()) paths = {files_.root().string()};  // says what is missing
    const Tokenizer& tokenizer = *loaded_.tokenizer;
    if (!names_shards(paths.front())) {
      bits_per_byte("text", [&](const LoaderOptions& options) {
        return make_text_loader(paths, loaded_.tokenizer, /*validation_every=*/0, options, nullptr,
                                {.text_column = config_.text_column});
      });
      return;
    }
    for (const auto& [split, name] : {std::pair{Split::kTrain, "train"}, {Split::kValidation, "validation"}}) {
      if (split == Split::kValidation && !has_validation(paths, 0)) {
        log_info("bpb: the token shards have no validation split");
        break;
      }
      bits_per_byte(name, [&, split = split](LoaderOptions options) {
        options.split = split;
        return make_shard_loader(paths, tokenizer.bos_id(), tokenizer.fingerprint(), options, nullptr);
      });
    }
  }

  template <class Open>
  void bits_per_byte(const char* name, const Open& open) {
    const std::int64_t length = loaded_.model->config().sequence_len;
    const std::int64_t rows = std::max<std::int64_t>(1, std::min(config_.device_batch_size, scoring().batch_tokens / length));
    const auto open_shape = [&](std::int64_t shape_rows, std::int64_t sequence_len) {
      LoaderOptions options;
      options.rows = shape_rows;
      options.sequence_len = sequence_len;
      options.packing = Packing::kStream;  // as the reference, so that figures compare
      options.loop = false;
      return open(options);
    };
    const auto start = SteadyClock::now();
    progress_.start(fmt::format("bpb {}", name), 0, "batches");
    const BitsPerByte bpb = evaluate_bits_per_byte(*loaded_.model, open_shape, rows, length, config_.eval_tokens,
                                                   loaded_.tokenizer->token_byte_lengths());
    progress_.finish();
    TaskResult result;
    result.suite = "bpb";
    result.task = name;
    result.metric = "bits per byte";
    result.value = bpb.value();
    result.notes.push_back(fmt::format("{} tokens, {} bytes", bpb.tokens, bpb.bytes));
    result.seconds = seconds_since(start);
    evaluation_.results.push_back(std::move(result));
  }

  void completions() {
    const fs::path* named = files_.named("completion");
    const auto items = read_completion_items(named != nullptr ? *named : files_.root());
    const CompletionResult scores = evaluate_completions(*loaded_.model, *loaded_.tokenizer, items, config_.device_batch_size,
                                                         progress_);
    for (std::size_t i = 0; config_.show && !context_.json && i < items.size(); ++i) {
      std::cout << fmt::format("{} {}{}\n", scores.correct[i] ? "✓" : "✗", items[i].prompt, scores.continuations[i]);
    }
    TaskResult result;
    result.suite = result.task = "completion";
    take_accuracy(result, {scores.all.correct, scores.all.total});
    for (const auto& [topic, score] : scores.by_topic) result.groups[topic] = {score.correct, score.total};
    evaluation_.results.push_back(std::move(result));
  }

  void write_files() {
    const fs::path file = output_ / "eval.json";
    EvaluationResult whole = evaluation_;
    if (fs::exists(file)) {
      const EvaluationResult earlier = read_evaluation(file);
      if (earlier.settings == whole.settings) merge_earlier(whole, earlier);
    }
    write_file_atomically(file, to_json(whole).dump(2) + "\n");
    write_file_atomically(output_ / "eval.csv", to_csv(whole));
    log_info("{} and eval.csv written", file.string());
  }

  // Where nothing could be scored there is no table to show, and the first error is the command's.
  void require_a_figure() const {
    const auto& results = evaluation_.results;
    if (interrupt_requested() ||
        std::any_of(results.begin(), results.end(), [](const TaskResult& result) { return result.ok(); }))
      return;
    for (std::size_t i = 1; i < results.size(); ++i) log_error("{}", results[i].error);
    throw DataError(results.empty() ? std::string("--benchmarks names nothing to score") : results.front().error);
  }

  ExitCode finish() const {
    const auto& results = evaluation_.results;
    bool whole = true;
    for (const TaskResult& result : results) {
      if (result.ok()) continue;
      log_error("{}", result.error);
      whole = false;
    }
    if (interrupt_requested()) {
      log_warn("interrupted; the same command with --resume goes on");
      return ExitCode::kPartial;
    }
    return whole ? ExitCode::kOk : ExitCode::kPartial;
  }

  const EvalConfig& config_;
  Context& context_;
  Communicator& communicator_;
  ProgressReporter& progress_;
  int rank_, world_size_;
  Runtime runtime_;
  EvaluationFiles files_;
  Compared compared_;
  std::unique_ptr<Sandbox> sandbox_;
  LoadedModel loaded_;
  EvaluationResult evaluation_;
  nlohmann::json settings_;
  fs::path output_;
  ExampleStore store_;
};

}  // namespace

void add_eval(CommandLine& command_line) {
  auto config = std::make_shared<EvalConfig>();
  Subcommand& command = command_line.add(
      "eval", "Evaluate a model on CORE, bits per byte (bpb), chat tasks or custom tasks.",
      "nanochat eval runs/first --benchmarks core,bpb --data-dir data --task-file bpb=shards");
  command.option("model", config->model, "Run or checkpoint to score.");
  command.positional("model", /*required=*/true);
  std::vector<std::string> names = {"completion", "core", "bpb", "chat"};
  names.insert(names.end(), chat_task_names().begin(), chat_task_names().end());
  const Option& benchmarks =
      command
          .option("benchmarks", config->benchmarks,
                  "What to evaluate. core: the 22 tasks of the CORE evaluation bundle. bpb: loss in bits per byte on token "
                  "shards or text. chat: the six tasks of ChatCORE, which can also be named one by one. completion: a file of "
                  "prompts, each with its accepted answers and a topic. With --custom-task, only the custom task is evaluated "
                  "unless this option is given.")
          .comma_separated()
          .one_of(names);
  command.option("custom_task", config->custom_tasks, "JSON file that describes a custom task. May be repeated.");
  command.option("data_dir", config->data_dir,
                 "Folder with the data of the tasks, as written by `data download`. For completion, the file of "
                 "prompts. For bpb, token shards or text.");
  add_text_column(command, config->text_column);
  command.option("task_file", config->task_files,
                 "NAME=PATH: use another data file for the CORE task NAME, or these files for the benchmark NAME. "
                 "May be repeated.");
  declare_runtime_options(command.options(), config->runtime);
  command.option("output_dir", config->output_dir,
                 "Folder for eval.json, eval.csv and examples.jsonl; default for a checkpoint of a run: "
                 "RUN/eval/STEP.");
  command.option("resume", config->resume,
                 "Reuse the results in the output folder, including those of other processes, and score only the remaining "
                 "examples.");
  command.option("save_samples", config->save_samples,
                 "Also save the token ids, the scored token ranges and the answer of every example.");
  command.option("compare", config->compare,
                 "Earlier evaluations to show in the same table: eval.json files, folders with one, or runs.");
  command.option("max_per_task", config->max_per_task, "Score at most this many examples of each task; -1 scores all.")
      .at_least(-1);
  command
      .option("truncate", config->truncate,
              "Maximum length of a CORE prompt; a longer one loses its beginning. longest: ten times the context, as in the "
              "Python nanochat. context: the context length of the model.")
      .one_of({"longest", "context"});
  command
      .option("batch_tokens", config->batch_tokens,
              "Number of tokens in one forward pass; 0 uses 8192 on a CPU and 65536 on a GPU.")
      .at_least(0);
  command.option("device_batch_size", config->device_batch_size, "Number of prompts to complete at a time.").at_least(1);
  command.option("eval_tokens", config->eval_tokens, "Number of tokens of each split for bits per byte.").at_least(1);
  command
      .option("num_samples", config->num_samples,
              "Number of answers sampled for each question. A question counts as correct if any answer is (pass@k).")
      .at_least(1);
  command.option("max_tokens", config->max_tokens, "Maximum number of tokens in an answer.").at_least(1);
  command.option("temperature", config->temperature, "Sampling temperature of answers; 0 always takes the most likely token.")
      .at_least(0);
  command.option("top_k", config->top_k, "Sample from the k most likely tokens; 0 samples from all.").at_least(0);
  command.option("seed", config->seed, "Random seed for sampling answers.");
  command.option("allow_unsandboxed", config->allow_unsandboxed,
                 "Run programs written by the model even where the sandbox cannot isolate them.");
  command.option("rank", config->rank, "Number of this process, from 0, when several processes split the examples.")
      .at_least(0);
  command
      .option("world_size", config->world_size,
              "Number of processes that split the examples. Run once more with --resume and a world size of 1 to merge "
              "their results.")
      .at_least(1);
  command.option("show", config->show, "With --benchmarks completion: print every prompt with the model's continuation.");
  auto distributed = std::make_shared<CommunicatorOptions>(communicator_options("eval"));
  declare_distributed_options(command.options(), *distributed);
  command.run([config, distributed, &command, &benchmarks](Context& context) {
    // A task of one's own brings its data; nobody asked for the benchmark that is scored by default.
    if (!config->custom_tasks.empty() && benchmarks.source() == "default" && config->data_dir.empty() &&
        config->task_files.empty()) {
      config->benchmarks.clear();
    }
    nlohmann::json configuration = command.options().resolved();
    configuration.erase("rank");
    Ranks ranks(*distributed, config->runtime, configuration);
    return Evaluator(*config, context, ranks.communicator(), ranks.progress(context)).run();
  });
}

}  // namespace nanochat::cli
