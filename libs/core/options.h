#pragma once
// Options declared once with name, default, help text and checks, and bound to a field of a struct. The command
// line, --help, environment variables, configuration files and a run's resolved configuration use the list.
//
//   PretrainConfig config;
//   OptionList options;
//   options.add("depth", config.depth, "Number of layers. The model is 64 times as wide.").at_least(1);
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

using OptionField = std::variant<bool*, int*, std::int64_t*, std::uint64_t*, double*, std::string*, std::filesystem::path*,
                                 std::vector<std::string>*>;

class Option {
 public:
  Option(std::string name, OptionField field, std::string help);

  // Checks for every new value. They return *this for chaining.
  Option& at_least(double minimum);
  Option& at_most(double maximum);
  Option& above(double minimum, double otherwise);  // more than `minimum`, or exactly `otherwise`: above(0, -1)
  Option& one_of(std::vector<std::string> choices);
  // The function returns the expected value in words ("a power of two") if the value is wrong, otherwise an empty string.
  Option& check(std::function<std::string(const nlohmann::json&)> expected_or_empty);
  // The option also takes this word, which gives its integer field that number; checks concern other values only.
  Option& or_word(std::string word, std::int64_t number);
  Option& comma_separated();  // a list that flags may also give as "a,b" (environment variables always may)
  Option& formerly(std::string name);  // an earlier name, still accepted in flags, environment and files
  Option& not_in_resolved();  // belongs to the invocation and not to the run (for example quiet)
  // A resumed run may have another value: the value does not affect what is learned, or resuming checks it separately.
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
  std::string type_name() const;                         // INT, INT|auto, FLOAT, TEXT, PATH, TEXT..., empty for bool
  const std::string& default_text() const { return default_text_; }
  bool in_resolved() const { return in_resolved_; }
  bool is_changeable() const { return may_change_; }
  const std::string& source() const { return source_; }  // default | file path | environment | flag

  nlohmann::json value() const;
  // Throw ConfigError with `where` (flag, variable or file), the value found and the value expected; the field is
  // then unchanged. Integers may be written as 1e6. Fractions and values that do not fit the field are errors.
  void set_json(const nlohmann::json& value, const std::string& where, const std::string& source);
  void set_text(const std::vector<std::string>& values, const std::string& where, const std::string& source);

 private:
  friend class OptionList;
  std::string name_, former_, help_, default_text_, source_ = "default";
  OptionField field_;
  std::vector<std::string> choices_;
  std::vector<std::function<std::string(const nlohmann::json&)>> checks_;
  std::string word_;  // of or_word(); empty: none
  std::int64_t word_number_ = 0;
  bool comma_separated_ = false;
  bool in_resolved_ = true;
  bool may_change_ = false;
};

// A difference from a saved resolved configuration.
struct OptionDifference {
  std::string name, text;   // "depth: 6 → 4": saved value and current value
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

  // Applies a JSON object. An unknown key throws ConfigError with the nearest known key.
  void apply_json(const nlohmann::json& object, const std::string& where);
  void apply_file(const std::filesystem::path& file);          // JSON with // comments allowed
  // NANOCHAT_* variables. Unknown variables are ignored, and empty ones
  // count as not set. A list is a JSON array or items separated by commas.
  void apply_environment();
  nlohmann::json resolved() const;                             // all options that belong to the run
  // All options of the run that differ from a saved resolved configuration.
  std::vector<OptionDifference> differences(const nlohmann::json& saved) const;

 private:
  std::deque<Option> options_;
};

// The candidate with the smallest edit distance (Damerau-Levenshtein); empty if none is close.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace nanochat
