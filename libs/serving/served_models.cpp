#include "serving/internal/served_models.h"

#include <algorithm>

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include "serving/api_error.h"

namespace nanochat {

ServedModels ServedModels::with(Model model) const {
  ServedModels changed = *this;
  const auto same = std::find_if(changed.models_.begin(), changed.models_.end(),
                                 [&](const Model& one) { return one->id == model->id; });
  if (same == changed.models_.end()) {
    changed.models_.push_back(std::move(model));
  } else {
    *same = std::move(model);
  }
  return changed;
}

bool ServedModels::ready() const {
  return !models_.empty() && std::all_of(models_.begin(), models_.end(),
                                         [](const Model& one) { return one->engine == nullptr || one->engine->ready(); });
}

const ServedModels::Model& ServedModels::describe(const std::string& name) const {
  const auto found = std::find_if(models_.begin(), models_.end(),
                                  [&](const Model& one) { return name.empty() || one->id == name; });
  if (found == models_.end() && !models_.empty()) {
    std::vector<std::string> names;
    for (const Model& one : models_) names.push_back(fmt::format("\"{}\"", one->id));
    const char* whose = names.size() == 1 ? "the model of this server" : "the models of this server";
    throw ApiError(404, "invalid_request_error",
                   fmt::format("model: found \"{}\", expected {}, {}", name, fmt::join(names, " or "), whose), "model",
                   "model_not_found");
  }
  if (found == models_.end()) throw ApiError::unavailable("the model is still loading");
  return *found;
}

const ServedModels::Model& ServedModels::find(const std::string& name, bool stream) const {
  const Model& found = describe(name);
  if (found->used) *found->used = std::chrono::steady_clock::now().time_since_epoch().count();
  if (found->engine == nullptr) throw ModelNotLoaded(found->id, stream);
  if (!found->engine->ready()) throw ApiError::unavailable("the model is still loading");
  return found;
}

EngineStats ServedModels::stats() const {
  EngineStats sum;
  for (const Model& one : models_) {
    if (one->engine != nullptr) sum += one->engine->stats();
  }
  return sum;
}

}  // namespace nanochat
