#pragma once
// The models that a server serves at one moment, by their names. Immutable.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "serving/served_model.h"

namespace nanochat {

class ServedModels {
 public:
  using Model = std::shared_ptr<const ServedModel>;

  // A copy in which `model` replaces the one of the same name, or comes last.
  ServedModels with(Model model) const;

  const std::vector<Model>& all() const { return models_; }  // the first is the default
  bool ready() const;  // there is a model, and the engine of each is ready
  // The model of this name; "" stands for the default. Throws ApiError: 404 with the names that there are, and 503 while the model
  // loads.
  const Model& find(const std::string& name) const;
  // The counters of all engines, added up.
  EngineStats stats() const;

 private:
  std::vector<Model> models_;
};

}  // namespace nanochat
