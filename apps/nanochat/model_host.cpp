#include "model_host.h"

#include <algorithm>
#include <span>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "checkpoint/checkpoint.h"
#include "core/elapsed.h"
#include "core/errors.h"
#include "core/interrupt.h"
#include "core/log.h"
#include "core/sha256.h"
#include "inference/answer_constraint.h"
#include "inference/calculator_tool.h"
#include "inference/chat.h"
#include "inference/engine_memory.h"
#include "inference/replicas.h"
#include "inference/token_trie.h"
#include "model/gpt.h"
#include "runtime/host_memory.h"

namespace nanochat::cli {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kPoll{50};
constexpr const char* kShuttingDown = "the server is shutting down";

// The name of the run, or of the folder that holds the model.
std::string default_name(const fs::path& checkpoint) {
  const fs::path folder = fs::is_directory(checkpoint) ? checkpoint : checkpoint.parent_path();
  const bool in_run = folder.parent_path().filename() == "checkpoints";
  return (in_run ? folder.parent_path().parent_path() : folder).filename().string();
}

std::string version_of(const fs::path& checkpoint) {
  return fmt::format("{} {}", checkpoint.string(), fs::last_write_time(checkpoint).time_since_epoch().count());
}

// The time of the checkpoint, in seconds since 1970.
std::int64_t time_of(const fs::path& checkpoint) {
  const auto age = fs::file_time_type::clock::now() - fs::last_write_time(checkpoint);
  return std::chrono::duration_cast<std::chrono::seconds>((std::chrono::system_clock::now() - age).time_since_epoch()).count();
}

std::string no_tokenizer(const fs::path& folder) {
  return fmt::format("{}: no tokenizer beside the model, and serving needs one", folder.string());
}

// What is known of a model that is not loaded.
std::shared_ptr<ServedModel> described(const std::string& name, const fs::path& folder, std::int64_t context) {
  auto served = std::make_shared<ServedModel>();
  served->id = name.empty() ? default_name(folder) : name;
  served->created = time_of(folder);
  served->context = context;
  return served;
}

std::shared_ptr<ServedModel> serve_loaded(const std::string& name, const LoadedModel& loaded) {
  const std::shared_ptr<ServedModel> served = described(name, loaded.folder, loaded.model->config().sequence_len);
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

}  // namespace

ModelHost::ModelHost(std::vector<HostedModel> models, EngineOptions engine, const Runtime& runtime,
                     std::vector<at::Device> devices, Api& api, std::int64_t memory)
    : models_(std::move(models)), engine_(std::move(engine)), runtime_(runtime), devices_(std::move(devices)), api_(api),
      memory_(memory) {}

ModelHost::~ModelHost() { stop(); }

// ------------------------------------------------------------------------------------------------------------- one model

bool ModelHost::Live::idle() const {
  const EngineStats stats = engine->stats();
  // Held by this object and by the Api. A request that is about to begin, and an answer that is being read, hold it too.
  return stats.running == 0 && stats.queued == 0 && served.use_count() <= 2;
}

// An engine for the model, which is on the first device, and for copies of it on the others.
std::shared_ptr<ServingEngine> ModelHost::make_engine(std::unique_ptr<Gpt> model, const Plan& plan,
                                                      const EngineOptions& options) const {
  if (devices_.size() == 1) return std::make_shared<Engine>(std::move(model), options);
  const EngineOptions of_each = Replicas::engine_options(options);
  std::vector<std::unique_ptr<Engine>> engines;
  engines.push_back(std::make_unique<Engine>(std::move(model), of_each));
  for (const at::Device device : std::span(devices_).subspan(1)) {
    engines.push_back(std::make_unique<Engine>(load_model(plan.checkpoint, runtime_.dtype, device).model, of_each));
  }
  return std::make_shared<Replicas>(std::move(engines), options);
}

ModelHost::Plan ModelHost::plan(const fs::path& checkpoint, const CheckpointSummary& summary) const {
  Plan plan{.checkpoint = checkpoint, .version = version_of(checkpoint), .options = engine_};
  if (memory_ == 0) return plan;
  try {
    const EngineMemory memory = plan_engine_memory(summary.config, runtime_.dtype, devices_.front(), engine_, memory_);
    plan.bytes = memory.total();
    plan.options.kv_blocks = memory.kv_blocks;
  } catch (const OutOfMemoryError& error) {
    throw OutOfMemoryError(fmt::format("--memory: {}: {}", summary.folder.string(), error.what()));
  }
  return plan;
}

std::optional<fs::path> ModelHost::newer_checkpoint(const Live& live) {
  const fs::path newest = find_checkpoint(live.source.path);
  return version_of(newest) == live.plan.version ? std::nullopt : std::optional(newest);
}

ModelHost::Live ModelHost::describe(const HostedModel& model) const {
  const fs::path checkpoint = find_checkpoint(model.path);
  const CheckpointSummary summary = describe_checkpoint(checkpoint);
  Plan found = plan(checkpoint, summary);
  if (!summary.has_tokenizer) throw CheckpointError(no_tokenizer(summary.folder));
  return {.source = model,
          .plan = std::move(found),
          .engine = nullptr,
          .served = described(model.name, summary.folder, summary.config.sequence_len)};
}

ModelHost::Live ModelHost::load(const HostedModel& model, Plan plan) const {
  LoadedModel loaded = load_model(plan.checkpoint, runtime_.dtype, devices_.front());
  if (loaded.tokenizer == nullptr) throw CheckpointError(no_tokenizer(loaded.folder));
  const std::shared_ptr<ServedModel> served = serve_loaded(model.name, loaded);
  EngineOptions options = plan.options;
  options.make_tool = [tokenizer = served->tokenizer] { return make_calculator_tool(*tokenizer); };
  Live live{.source = model, .plan = std::move(plan), .engine = nullptr, .served = nullptr};
  live.engine = make_engine(std::move(loaded.model), live.plan, options);
  served->engine = live.engine;
  served->memory_bytes = live.plan.bytes * static_cast<std::int64_t>(devices_.size());
  served->used = std::make_shared<std::atomic<Clock::rep>>(Clock::now().time_since_epoch().count());
  live.served = served;
  live.engine->start();
  while (!live.engine->ready() && !interrupt_requested()) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  log_info("loaded \"{}\" with a context of {}", served->id, live.engine->context_length());
  return live;
}

void ModelHost::check_name(const Live& live) const {
  for (const Live& other : live_) {
    if (other.served->id != live.served->id) continue;
    throw ConfigError(fmt::format("--model-name: found two models of the name \"{}\", expected different names",
                                  live.served->id));
  }
}

// ------------------------------------------------------------------------------------------------- the thread of the host

void ModelHost::load() {
  // All models are described before the first is loaded: an error of any of them comes at once.
  for (const HostedModel& model : models_) {
    Live live = describe(model);
    check_name(live);
    const std::lock_guard lock(mutex_);
    live_.push_back(std::move(live));
  }
  for (Live& live : live_) {
    if (interrupt_requested()) return;
    Live loaded = load(live.source, live.plan);
    const std::lock_guard lock(mutex_);
    live = std::move(loaded);
    if (memory_ > 0) break;
  }
  for (const Live& live : live_) api_.set_model(live.served);  // together: /health is 200 when all are there
}

void ModelHost::watch(double seconds) {
  thread_ = std::thread([this, seconds] { run(seconds); });
}

void ModelHost::reload(ReloadDone done) {
  const std::lock_guard lock(mutex_);
  asked_.push_back(std::move(done));
  wake_.notify_one();
}

void ModelHost::load_one(const std::string& id, LoadDone done) {
  {
    const std::lock_guard lock(mutex_);
    if (!draining_ && !stopped_) {
      wanted_.push_back({id, std::move(done)});
      wake_.notify_one();
      return;
    }
  }
  done(kShuttingDown);
}

void ModelHost::run(double seconds) {
  const auto interval = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  auto next = Clock::now() + interval;
  while (true) {
    std::deque<ReloadDone> asked;
    {
      std::unique_lock lock(mutex_);
      // Engines that were replaced have to be looked after, and models may wait for their memory; else the thread sleeps until
      // somebody asks or it is time.
      const auto until = !retired_.empty() || !wanted_.empty() ? Clock::now() + kPoll
                         : seconds > 0                         ? next
                                                               : Clock::time_point::max();
      const std::size_t waiting = wanted_.size();
      const auto wanted = [&] { return stopped_ || !asked_.empty() || wanted_.size() != waiting; };
      if (until == Clock::time_point::max()) {
        wake_.wait(lock, wanted);
      } else {
        wake_.wait_until(lock, until, wanted);
      }
      if (stopped_) return;
      asked.swap(asked_);
    }
    stop_retired();
    load_wanted();
    if (asked.empty() && (seconds <= 0 || Clock::now() < next)) continue;
    reload_asked(asked);
    next = Clock::now() + interval;
  }
}

void ModelHost::replace(Live& live, Live fresh) {
  api_.set_model(fresh.served);
  const std::lock_guard lock(mutex_);
  Live old = std::exchange(live, std::move(fresh));
  if (old.engine != nullptr) retired_.push_back(std::move(old));
}

// New requests for the model have it loaded again.
void ModelHost::unload(Live& live) {
  log_info("unloading \"{}\" to make room", live.served->id);
  auto unloaded = std::make_shared<ServedModel>();
  unloaded->id = live.served->id;
  unloaded->created = live.served->created;
  unloaded->fingerprint = live.served->fingerprint;
  unloaded->context = live.served->context;
  replace(live, {.source = live.source, .plan = live.plan, .engine = nullptr, .served = unloaded});
}

std::int64_t ModelHost::bytes(bool with_retired) const {
  std::int64_t sum = 0;
  for (const Live& one : live_) sum += one.engine == nullptr ? 0 : one.plan.bytes;
  if (with_retired) {
    for (const Live& one : retired_) sum += one.plan.bytes;
  }
  return sum;
}

bool ModelHost::make_room(std::int64_t wanted) {
  while (bytes(false) + wanted > memory_) {
    Live* victim = nullptr;
    const auto order = [](const Live& live) { return std::pair(!live.idle(), live.served->used->load()); };
    for (Live& live : live_) {
      if (live.engine != nullptr && (victim == nullptr || order(live) < order(*victim))) victim = &live;
    }
    unload(*victim);
  }
  stop_retired();
  return bytes(true) + wanted <= memory_;
}

// This thread alone changes live_ once it runs.
void ModelHost::load_wanted() {
  while (true) {
    std::string id;
    {
      const std::lock_guard lock(mutex_);
      if (wanted_.empty()) return;
      id = wanted_.front().id;
    }
    std::string error;
    try {
      const auto live = std::find_if(live_.begin(), live_.end(), [&](const Live& one) { return one.served->id == id; });
      if (live->engine == nullptr) {
        if (const auto newer = newer_checkpoint(*live)) live->plan = plan(*newer, describe_checkpoint(*newer));
        if (!make_room(live->plan.bytes)) return;  // until answers are finished
        replace(*live, load(live->source, live->plan));
      }
    } catch (const std::exception& failure) {
      log_error("\"{}\" could not be loaded: {}", id, failure.what());
      error = "the log of the server has the reason";
    }
    end_waiting(id, error);
  }
}

// Answers the requests that wait for the model: with an error, or with "" when it is loaded. An empty id stands for all models.
void ModelHost::end_waiting(const std::string& id, const std::string& error) {
  std::vector<LoadDone> waiting;
  {
    const std::lock_guard lock(mutex_);
    for (Wanted& one : wanted_) {
      if ((id.empty() || one.id == id) && one.done) waiting.push_back(std::move(one.done));
    }
    std::erase_if(wanted_, [&](const Wanted& one) { return id.empty() || one.id == id; });
  }
  for (const LoadDone& done : waiting) done(error);
}

void ModelHost::reload_asked(const std::deque<ReloadDone>& asked) {
  std::vector<std::string> replaced;
  std::string error;
  for (Live& live : live_) {
    if (live.engine == nullptr) continue;  // its first use loads the newest checkpoint
    try {
      if (renew(live)) replaced.push_back(live.served->id);
    } catch (const std::exception& failure) {  // the model that is served stays: a checkpoint may be incomplete or gone
      log_error("reload failed: {}", failure.what());
      error += fmt::format("{}{}", error.empty() ? "" : "; ", failure.what());
    }
  }
  for (const ReloadDone& done : asked) done(replaced, error);
}

bool ModelHost::renew(Live& live) {
  const auto newer = newer_checkpoint(live);
  if (!newer) return false;
  Plan fresh = plan(*newer, describe_checkpoint(*newer));
  if (memory_ > 0 && bytes(true) + fresh.bytes > memory_) {
    // There is no room for both. The next requests wait until the old one has finished its answers.
    unload(live);
    const std::lock_guard lock(mutex_);
    wanted_.push_back({live.served->id, {}});
    return true;
  }
  replace(live, load(live.source, std::move(fresh)));
  log_info("reloaded \"{}\" from {}", live.served->id, live.plan.checkpoint.string());
  return true;
}

// Whoever still needs an old model holds it: a request that is about to begin, one that runs, and one whose answer is being read.
void ModelHost::stop_retired() {
  std::vector<Live> finished;
  {
    const std::lock_guard lock(mutex_);
    for (auto one = retired_.begin(); one != retired_.end();) {
      if (one->served.use_count() > 1) {
        ++one;
        continue;
      }
      finished.push_back(std::move(*one));
      one = retired_.erase(one);
    }
  }
  if (finished.empty()) return;
  for (const Live& one : finished) {
    one.engine->stop();
    api_.forget_engine(one.engine);
  }
  finished.clear();
  if (memory_ > 0) release_host_memory();
}

// ------------------------------------------------------------------------------------------------------------- the end

std::int64_t ModelHost::unfinished() const {
  const std::lock_guard lock(mutex_);
  auto count = static_cast<std::int64_t>(wanted_.size());
  for (const std::vector<Live>* some : {&live_, &retired_}) {
    for (const Live& one : *some) {
      if (one.engine == nullptr) continue;
      const EngineStats stats = one.engine->stats();
      count += stats.running + stats.queued;
    }
  }
  return count;
}

bool ModelHost::drain(std::chrono::milliseconds limit) {
  const auto end = Clock::now() + limit;
  std::vector<std::shared_ptr<ServingEngine>> engines;
  {
    const std::lock_guard lock(mutex_);
    draining_ = true;
    for (const std::vector<Live>* some : {&live_, &retired_}) {
      for (const Live& one : *some) {
        if (one.engine != nullptr) engines.push_back(one.engine);
      }
    }
  }
  end_waiting("", kShuttingDown);
  bool finished = true;
  for (const auto& engine : engines) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now());
    finished = engine->drain(std::max(left, std::chrono::milliseconds(0))) && finished;
  }
  return finished;
}

void ModelHost::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
  for (std::vector<Live>* some : {&live_, &retired_}) {
    for (const Live& one : *some) {
      if (one.engine != nullptr) one.engine->stop();
    }
  }
  end_waiting("", kShuttingDown);
  for (const ReloadDone& done : std::exchange(asked_, {})) done({}, kShuttingDown);
}

}  // namespace nanochat::cli
