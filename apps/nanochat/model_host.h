#pragma once
// The models of `nanochat serve`: loads them, gives them to an Api, and replaces a model by a newer checkpoint of its run while
// the server answers. Requests that began with the old model are finished by it.
//
// With a limit of memory, models other than the first are loaded on first use. To make room, the least recently used model is
// unloaded: one without running answers, if there is one. Otherwise the least recently used one finishes its answers first, and
// new requests for it wait until it is loaded again, so that requests for one model cannot keep another from being loaded.

#include <ATen/core/Tensor.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "inference/engine.h"
#include "runtime/runtime.h"
#include "serving/api.h"

namespace nanochat::cli {

struct HostedModel {
  std::filesystem::path path;  // a run, a checkpoint or a file
  std::string name;  // empty: the name of the run, or of the folder that holds the model
};

class ModelHost {
 public:
  // Does not load yet. Each model has a replica on each of the devices, of which there must be at least one. `runtime` and `api`
  // must outlive the object. memory: bytes of each device for the weights and KV caches of all loaded models; 0: all models are
  // loaded at the start.
  ModelHost(std::vector<HostedModel> models, EngineOptions engine, const Runtime& runtime, std::vector<at::Device> devices,
            Api& api, std::int64_t memory = 0);
  ~ModelHost();  // stop()
  ModelHost(const ModelHost&) = delete;
  ModelHost& operator=(const ModelHost&) = delete;

  // Loads and serves all models, or with a limit of memory the first one, one after the other, and waits until they are ready or
  // an interrupt is requested. Before anything is loaded, throws ConfigError for two models of one name, and OutOfMemoryError for
  // a model that cannot fit into the limit. Also throws what load_model and Engine throw.
  void load();
  // Has a thread load models on first use, and look for newer checkpoints: when reload() asks for it, and every `seconds` unless
  // that is 0.
  void watch(double seconds);
  // Looks once. `done` gets the names of the models that were replaced, and the errors of others, on that thread. Returns at once.
  void reload(ReloadDone done);
  // Loads the model of this name, as soon as there is room for it. `done` is called on that thread. Returns at once.
  void load_one(const std::string& id, LoadDone done);

  std::int64_t unfinished() const;  // requests that run or wait
  // Refuses new requests, and those that wait for a model to be loaded. Returns whether all others were finished within `limit`.
  bool drain(std::chrono::milliseconds limit);
  void stop();

 private:
  // What is known of a model before it is loaded.
  struct Plan {
    std::filesystem::path checkpoint;
    std::string version;  // of the checkpoint: its folder and time
    EngineOptions options;
    std::int64_t bytes = 0;  // of memory on each device; 0: unknown
  };
  struct Live {
    HostedModel source;
    Plan plan;
    std::shared_ptr<ServingEngine> engine;  // null: not loaded
    std::shared_ptr<const ServedModel> served;
    bool idle() const;  // no request uses the model
  };
  struct Wanted {
    std::string id;
    LoadDone done;  // empty: nobody waits
  };
  Plan plan(const std::filesystem::path& checkpoint, const CheckpointSummary& summary) const;
  static std::optional<std::filesystem::path> newer_checkpoint(const Live& live);  // than the one of its plan
  Live describe(const HostedModel& model) const;  // not loaded
  Live load(const HostedModel& model, Plan plan) const;
  std::shared_ptr<ServingEngine> make_engine(std::unique_ptr<Gpt> model, const Plan& plan, const EngineOptions& options) const;
  void check_name(const Live& live) const;
  void replace(Live& live, Live fresh);  // the requests of the old one are finished
  void unload(Live& live);
  std::int64_t bytes(bool with_retired) const;  // of the loaded models
  bool make_room(std::int64_t wanted);  // returns whether there is room now
  void load_wanted();
  bool renew(Live& live);  // serves the newest checkpoint; returns whether there is a newer one
  void reload_asked(const std::deque<ReloadDone>& asked);
  void stop_retired();  // the engines whose last request is finished
  // Answers the requests that wait for the model, or with "" for any: it is loaded, or an error.
  void end_waiting(const std::string& id, const std::string& error);
  void run(double seconds);

  const std::vector<HostedModel> models_;
  const EngineOptions engine_;
  const Runtime& runtime_;
  const std::vector<at::Device> devices_;
  Api& api_;
  const std::int64_t memory_;
  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  std::vector<Live> live_;
  std::vector<Live> retired_;  // replaced or unloaded, and not yet finished
  std::deque<ReloadDone> asked_;
  std::deque<Wanted> wanted_;  // in the order of their requests
  bool draining_ = false;
  bool stopped_ = false;
  std::thread thread_;
};

}  // namespace nanochat::cli
