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
#include "inference/replicas.h"
#include "inference/token_trie.h"
#include "model/gpt.h"

namespace nanochat::cli {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kPoll{50};

// The name of the run, or of the folder that holds the model.
std::string default_name(const fs::path& checkpoint) {
  const fs::path folder = fs::is_directory(checkpoint) ? checkpoint : checkpoint.parent_path();
  const bool in_run = folder.parent_path().filename() == "checkpoints";
  return (in_run ? folder.parent_path().parent_path() : folder).filename().string();
}

std::string version_of(const fs::path& checkpoint) {
  return fmt::format("{} {}", checkpoint.string(), fs::last_write_time(checkpoint).time_since_epoch().count());
}

std::shared_ptr<ServedModel> describe(const std::string& name, const LoadedModel& loaded) {
  auto served = std::make_shared<ServedModel>();
  served->id = name.empty() ? default_name(loaded.folder) : name;
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

}  // namespace

ModelHost::ModelHost(std::vector<HostedModel> models, EngineOptions engine, const Runtime& runtime,
                     std::vector<at::Device> devices, Api& api)
    : models_(std::move(models)), engine_(std::move(engine)), runtime_(runtime), devices_(std::move(devices)), api_(api) {}

ModelHost::~ModelHost() { stop(); }

// An engine for the model, which is on the first device, and for copies of it on the others.
std::shared_ptr<ServingEngine> ModelHost::make_engine(std::unique_ptr<Gpt> model, const fs::path& checkpoint,
                                                      const EngineOptions& options) const {
  if (devices_.size() == 1) return std::make_shared<Engine>(std::move(model), options);
  const EngineOptions of_each = Replicas::engine_options(options);
  std::vector<std::unique_ptr<Engine>> engines;
  engines.push_back(std::make_unique<Engine>(std::move(model), of_each));
  for (const at::Device device : std::span(devices_).subspan(1)) {
    engines.push_back(std::make_unique<Engine>(load_model(checkpoint, runtime_.dtype, device).model, of_each));
  }
  return std::make_shared<Replicas>(std::move(engines), options);
}

ModelHost::Live ModelHost::load_one(const HostedModel& model) const {
  const fs::path checkpoint = find_checkpoint(model.path);
  std::string version = version_of(checkpoint);
  LoadedModel loaded = load_model(checkpoint, runtime_.dtype, devices_.front());
  if (loaded.tokenizer == nullptr) {
    throw CheckpointError(fmt::format("{}: no tokenizer beside the model, and serving needs one", loaded.folder.string()));
  }
  const std::shared_ptr<ServedModel> served = describe(model.name, loaded);
  EngineOptions options = engine_;
  options.make_tool = [tokenizer = served->tokenizer] { return make_calculator_tool(*tokenizer); };
  Live live{.source = model, .version = std::move(version), .engine = nullptr, .served = nullptr};
  live.engine = make_engine(std::move(loaded.model), checkpoint, options);
  served->engine = live.engine;
  live.served = served;
  live.engine->start();
  while (!live.engine->ready() && !interrupt_requested()) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  return live;
}

void ModelHost::load() {
  for (const HostedModel& model : models_) {
    if (interrupt_requested()) return;
    Live live = load_one(model);
    const std::lock_guard lock(mutex_);
    for (const Live& other : live_) {
      if (other.served->id != live.served->id) continue;
      live.engine->stop();
      throw ConfigError(fmt::format("--model-name: found two models of the name \"{}\", expected different names",
                                    live.served->id));
    }
    log_info("loaded \"{}\" with a context of {}", live.served->id, live.engine->context_length());
    live_.push_back(std::move(live));
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

void ModelHost::run(double seconds) {
  const auto interval = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  auto next = Clock::now() + interval;
  while (true) {
    std::deque<ReloadDone> asked;
    {
      std::unique_lock lock(mutex_);
      // Engines that were replaced have to be looked after; else the thread sleeps until somebody asks or it is time.
      const auto until = !retired_.empty() ? Clock::now() + kPoll : seconds > 0 ? next : Clock::time_point::max();
      const auto wanted = [&] { return stopped_ || !asked_.empty(); };
      if (until == Clock::time_point::max()) {
        wake_.wait(lock, wanted);
      } else {
        wake_.wait_until(lock, until, wanted);
      }
      if (stopped_) return;
      asked.swap(asked_);
    }
    stop_retired();
    const bool due = seconds > 0 && Clock::now() >= next;
    if (asked.empty() && !due) continue;
    std::vector<std::string> replaced;
    std::string error;
    try {
      replaced = look();
    } catch (const std::exception& failure) {  // the model that is served stays: a checkpoint may be incomplete or gone
      error = failure.what();
      log_error("reload failed: {}", error);
    }
    next = Clock::now() + interval;
    for (const ReloadDone& done : asked) done(replaced, error);
  }
}

std::vector<std::string> ModelHost::look() {
  std::vector<std::string> replaced;
  // This thread alone changes live_ once it runs.
  for (Live& live : live_) {
    if (version_of(find_checkpoint(live.source.path)) == live.version) continue;
    Live fresh = load_one(live.source);
    api_.set_model(fresh.served);
    log_info("reloaded \"{}\" from {}", fresh.served->id, fresh.version.substr(0, fresh.version.rfind(' ')));
    replaced.push_back(fresh.served->id);
    const std::lock_guard lock(mutex_);
    retired_.push_back(std::exchange(live, std::move(fresh)));
  }
  return replaced;
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
  for (const Live& one : finished) one.engine->stop();
}

std::int64_t ModelHost::unfinished() const {
  const std::lock_guard lock(mutex_);
  std::int64_t count = 0;
  for (const std::vector<Live>* some : {&live_, &retired_}) {
    for (const Live& one : *some) {
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
    for (const Live& one : live_) engines.push_back(one.engine);
    for (const Live& one : retired_) engines.push_back(one.engine);
  }
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
    for (const Live& one : *some) one.engine->stop();
  }
  for (const ReloadDone& done : std::exchange(asked_, {})) done({}, "the server is shutting down");
}

}  // namespace nanochat::cli
