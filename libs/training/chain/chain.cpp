#include "training/chain/chain.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <set>

#include <spdlog/fmt/fmt.h>

#include "checkpoint/json_file.h"
#include "core/atomic_file.h"
#include "core/errors.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

json parse_file(const fs::path& file) {
  std::ifstream stream(file);
  if (!stream) throw ConfigError(file.string() + ": cannot be read; name a file of configs/, or one like them");
  try {
    return json::parse(stream, nullptr, true, /*ignore_comments=*/true);
  } catch (const json::exception& error) {
    throw ConfigError(fmt::format("{}: not JSON: {}", file.string(), error.what()));
  }
}

void replace_all(std::string& text, const std::string& from, const std::string& to) {
  for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

json with_folder(const json& value, const std::string& folder) {
  if (value.is_string()) {
    auto text = value.get<std::string>();
    replace_all(text, "{run}", folder);
    return text;
  }
  if (!value.is_structured()) return value;
  json result = value;
  for (json& element : result) element = with_folder(element, folder);
  return result;
}

bool is_nested(const json& value) {
  return value.is_object() || (value.is_array() && !value.empty() && value.front().is_object());
}

template <class T>
T require(const json& object, const char* key, const std::string& where) {
  try {
    return object.at(key).get<T>();
  } catch (const json::exception&) {
    throw ConfigError(fmt::format("{}: \"{}\" is {}", where, key, object.contains(key) ? "of the wrong type" : "missing"));
  }
}

template <class T>
T optional_value(const json& object, const char* key, T preset, const std::string& where) {
  return object.contains(key) ? require<T>(object, key, where) : preset;
}

void check_keys(const json& object, std::initializer_list<const char*> keys, const std::string& where) {
  if (!object.is_object()) throw ConfigError(fmt::format("{}: found {}, expected an object", where, object.type_name()));
  for (const auto& [key, value] : object.items()) {
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) {
      throw ConfigError(fmt::format("{}: unknown key \"{}\"; known are {}", where, key, fmt::join(keys, ", ")));
    }
  }
}

ChainStep parse_step(const json& value, const std::string& folder, const std::string& where) {
  check_keys(value, {"name", "command", "options", "plan"}, where);
  ChainStep step{require<std::string>(value, "name", where), require<std::string>(value, "command", where),
                 with_folder(require<json>(value, "options", where), folder),
                 optional_value(value, "plan", json(json::object()), where)};
  if (!step.options.is_object() || !step.plan.is_object())
    throw ConfigError(where + ": \"options\" and \"plan\" have to be objects");
  for (json& option : step.options) {
    if (is_nested(option)) option = option.dump();
  }
  return step;
}

}  // namespace

Chain load_chain(const fs::path& file) {
  const json root = parse_file(file);
  const std::string where = file.string();
  check_keys(root, {"name", "description", "output_dir", "hardware", "steps"}, where);
  Chain chain;
  chain.name = require<std::string>(root, "name", where);
  chain.folder = optional_value(root, "output_dir", "runs/" + chain.name, where);
  if (const auto hardware = root.find("hardware"); hardware != root.end()) {
    check_keys(*hardware, {"name", "gpu", "flops_per_second"}, where + ": hardware");
    const std::string inside = where + ": hardware";
    chain.hardware = {require<std::string>(*hardware, "name", inside), optional_value(*hardware, "gpu", true, inside),
                      optional_value(*hardware, "flops_per_second", 0.0, inside)};
  }
  std::set<std::string> names;
  for (const json& value : require<std::vector<json>>(root, "steps", where)) {
    chain.steps.push_back(parse_step(value, chain.folder.string(), fmt::format("{}: step {}", where, chain.steps.size() + 1)));
    if (!names.insert(chain.steps.back().name).second) {
      throw ConfigError(fmt::format("{}: two steps are named \"{}\"", where, chain.steps.back().name));
    }
  }
  return chain;
}

ChainRecord::ChainRecord(const Chain& chain) : folder_(chain.folder), record_({{"steps", json::object()}}) {
  const fs::path file = folder_ / "chain.json";
  if (!fs::exists(file)) return;
  record_ = read_json_object(file);
  const auto steps = record_.find("steps");
  const auto is_step = [](const json& step) {
    return step.is_object() && step.contains("command") && step.contains("options") && step["options"].is_object();
  };
  if (steps == record_.end() || !steps->is_object() || !std::all_of(steps->begin(), steps->end(), is_step)) {
    throw ConfigError(file.string() + ": is not what `nanochat run` writes; remove it to do all steps again");
  }
}

bool ChainRecord::done(const ChainStep& step) const {
  const auto found = record_.at("steps").find(step.name);
  if (found == record_.at("steps").end()) return false;
  const json before = found->at("options");
  if (found->at("command") == step.command && before == step.options) return true;
  std::vector<std::string> changes;
  for (const auto& [key, value] : step.options.items()) {
    if (before.value(key, json()) != value)
      changes.push_back(fmt::format("{}: {} → {}", key, before.value(key, json()).dump(), value.dump()));
  }
  for (const auto& [key, value] : before.items()) {
    if (!step.options.contains(key)) changes.push_back(fmt::format("{}: {} → none", key, value.dump()));
  }
  throw ConfigError(
      fmt::format("step \"{}\" was done with other options: {}; give the chain another \"name\", or remove the step from "
                  "{} together with what it made",
                  step.name, fmt::join(changes, "; "), (folder_ / "chain.json").string()));
}

void ChainRecord::mark_done(const ChainStep& step, double seconds) {
  record_["steps"][step.name] = {{"command", step.command}, {"options", step.options}, {"seconds", seconds}};
  fs::create_directories(folder_);
  write_file_atomically(folder_ / "chain.json", to_json_text(record_));
}

fs::path ChainRecord::options_file(const ChainStep& step) const { return folder_ / ("step-" + step.name + ".json"); }

std::vector<std::string> resume_flags(const ChainStep& step) {
  static constexpr std::array<std::string_view, 4> kTraining = {"pretrain", "midtrain", "sft", "rl"};
  const auto named = step.options.find("output_dir");
  if (named == step.options.end() || !named->is_string()) return {};
  const fs::path output = named->get<std::string>();
  if (output.empty()) return {};
  const bool training = std::find(kTraining.begin(), kTraining.end(), step.command) != kTraining.end();
  if (training && fs::exists(output / "config.json")) return {"--resume", "latest"};
  if (step.command == "data prepare" && fs::exists(output)) return {"--resume"};
  return {};
}

}  // namespace nanochat
