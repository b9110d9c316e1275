#pragma once
// Options declared once: name, default, help and check, bound to the field of a plain struct. The list drives the
// command line, --help, the environment, configuration files and the resolved configuration stored with a run.
//
//   PretrainConfig config;
//   OptionList options;
//   options.add("depth", config.depth, "layers of the model; width is 64 times this").at_least(1);
//
// One option "device_batch_size" is --device-batch-size on the command line, NANOCHAT_DEVICE_BATCH_SIZE in the
// environment and "device_batch_size" in JSON. Precedence: flags > environment > file > defaults. Fields must outlive
// the list. Not thread-safe.

#include <concepts>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace nanochat {

using OptionField = std::variant<bool*, int*, std::int64_t*, std::uint64_t*, double*, std::string*,
                                 std::filesystem::path*, std::vector<std::string>*>;

class Option {
 public:
  Option(std::string name, OptionField field, std::string help);

  // Checks, applied whenever a value is set. Return *this for chaining.
  Option& at_least(double minimum);
  Option& at_most(double maximum);
  Option& above(double minimum, double otherwise);  // more than `minimum`, or exactly `otherwise`: above(0, -1)
  Option& one_of(std::vector<std::string> choices);
  // Returns what would be right ("a power of two") when the value is not.
  Option& check(std::function<std::string(const nlohmann::json&)> expected_or_empty);
  Option& comma_separated();  // a list that flags may also give as "a,b" (the environment always may)
  Option& formerly(std::string name);  // an earlier name, which flags, environment and files may still use
  Option& not_in_resolved();  // belongs to the invocation, not to the run (e.g. quiet)
  // A resumed run may have another value: it changes nothing of what is learnt, or whoever resumes checks it otherwise.
  Option& may_change();

  const std::string& name() const { return name_; }      // device_batch_size
  std::string flag() const;                              // --device-batch-size
  std::string former_flag() const;                       // empty when there is no earlier name
  std::string environment() const;                       // NANOCHAT_DEVICE_BATCH_SIZE
  bool is_called(std::string_view name) const { return name == name_ || (!former_.empty() && name == former_); }
  const std::string& help() const { return help_; }
  const std::vector<std::string>& choices() const { return choices_; }
  bool is_flag() const { return std::holds_alternative<bool*>(field_); }
  bool is_list() const { return std::holds_alternative<std::vector<std::string>*>(field_); }
  bool is_comma_separated() const { return comma_separated_; }
  std::string type_name() const;                         // INT, FLOAT, TEXT, PATH, TEXT..., empty for bool
  const std::string& default_text() const { return default_text_; }
  bool in_resolved() const { return in_resolved_; }
  bool is_changeable() const { return may_change_; }
  const std::string& source() const { return source_; }  // default | file path | environment | flag

  nlohmann::json value() const;
  // Throw ConfigError naming `where` (flag, variable or file), what was found and what would be right; the field is
  // then unchanged. Integers may be written 1e6; fractions and what the field cannot hold are errors.
  void set_json(const nlohmann::json& value, const std::string& where, const std::string& source);
  void set_text(const std::vector<std::string>& values, const std::string& where, const std::string& source);

 private:
  friend class OptionList;
  std::string name_, former_, help_, default_text_, source_ = "default";
  OptionField field_;
  std::vector<std::string> choices_;
  std::vector<std::function<std::string(const nlohmann::json&)>> checks_;
  bool comma_separated_ = false;
  bool in_resolved_ = true;
  bool may_change_ = false;
};

// From a saved resolved configuration.
struct OptionDifference {
  std::string name, text;   // "depth: 6 → 4": saved and now
  bool changeable = false;  // see Option::may_change()
};

class OptionList {
 public:
  Option& add(std::string name, OptionField field, std::string help);
  template <class T>
    requires std::constructible_from<OptionField, T*>
  Option& add(std::string name, T& field, std::string help) {
    return add(std::move(name), OptionField(&field), std::move(help));
  }

  std::deque<Option>& all() { return options_; }
  const std::deque<Option>& all() const { return options_; }
  Option* find(std::string_view name);

  // Applies a JSON object. An unknown key throws ConfigError naming the nearest known key.
  void apply_json(const nlohmann::json& object, const std::string& where);
  void apply_file(const std::filesystem::path& file);          // JSON with // comments allowed
  // NANOCHAT_*; unknown variables are left alone, empty ones count as unset. Lists: a JSON array, or items between
  // commas.
  void apply_environment();
  nlohmann::json resolved() const;                             // every option that belongs to the run
  // Each option of the run that differs from a saved resolved configuration.
  std::vector<OptionDifference> differences(const nlohmann::json& saved) const;

 private:
  std::deque<Option> options_;
};

// The candidate with the smallest edit distance (Damerau-Levenshtein); empty when none is close.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace nanochat
