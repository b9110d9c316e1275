#pragma once
// The models that a server serves at one moment, by their names. Immutable.

#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "serving/served_model.h"

namespace nanochat {

// A request names a model that is not loaded. Api has it loaded, and handles the request again.
class ModelNotLoaded : public std::runtime_error {
 public:
  ModelNotLoaded(const std::string& id, bool stream) : std::runtime_error(id), stream_(stream) {}
  std::string id() const { return what(); }
  bool stream() const { return stream_; }  // the request wants a stream

 private:
  bool stream_;
};

class ServedModels {
 public:
  using Model = std::shared_ptr<const ServedModel>;

  // A copy in which `model` replaces the one of the same name, or comes last.
  ServedModels with(Model model) const;

  const std::vector<Model>& all() const { return models_; }  // the first is the default
  bool ready() const;  // there is a model, and the engine of each model that is loaded is ready
  // The model of this name; "" stands for the default. Throws ApiError: 404 with the names that there are, and 503 while the model
  // loads. Throws ModelNotLoaded, with `stream`.
  const Model& find(const std::string& name, bool stream = false) const;
  // The same for a model that need not be loaded, for its description. Does not count as a use.
  const Model& describe(const std::string& name) const;
  // The counters of all engines, added up.
  EngineStats stats() const;

 private:
  std::vector<Model> models_;
};

}  // namespace nanochat
