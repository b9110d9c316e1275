#pragma once
// The models of `nanochat serve`: loads them, gives them to an Api, and replaces a model by a newer checkpoint of its run while
// the server answers. Requests that began with the old model are finished by it.

#include <ATen/core/Tensor.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

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
  // must outlive the object.
  ModelHost(std::vector<HostedModel> models, EngineOptions engine, const Runtime& runtime, std::vector<at::Device> devices,
            Api& api);
  ~ModelHost();  // stop()
  ModelHost(const ModelHost&) = delete;
  ModelHost& operator=(const ModelHost&) = delete;

  // Loads and serves all models, one after the other, and waits until they are ready or an interrupt is requested. Throws what
  // load_model and Engine throw, and ConfigError for two models of one name.
  void load();
  // Has a thread look for newer checkpoints: when reload() asks for it, and every `seconds` unless that is 0.
  void watch(double seconds);
  // Looks once. `done` gets the names of the models that were replaced, or an error, on that thread. Returns at once.
  void reload(ReloadDone done);

  std::int64_t unfinished() const;  // requests that run or wait
  // Refuses new requests. Returns whether all others were finished within `limit`.
  bool drain(std::chrono::milliseconds limit);
  void stop();

 private:
  struct Live {
    HostedModel source;
    std::string version;  // of the checkpoint: its folder and time
    std::shared_ptr<ServingEngine> engine;
    std::shared_ptr<const ServedModel> served;
  };
  Live load_one(const HostedModel& model) const;
  std::shared_ptr<ServingEngine> make_engine(std::unique_ptr<Gpt> model, const std::filesystem::path& checkpoint,
                                             const EngineOptions& options) const;
  std::vector<std::string> look();
  void stop_retired();  // the engines whose last request is finished
  void run(double seconds);

  const std::vector<HostedModel> models_;
  const EngineOptions engine_;
  const Runtime& runtime_;
  const std::vector<at::Device> devices_;
  Api& api_;
  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  std::vector<Live> live_;
  std::vector<Live> retired_;  // replaced, and not yet finished
  std::deque<ReloadDone> asked_;
  bool stopped_ = false;
  std::thread thread_;
};

}  // namespace nanochat::cli
