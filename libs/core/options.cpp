#include "core/options.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <optional>
#include <type_traits>
#include <utility>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/json_message.h"

namespace nanochat {
namespace {

using nlohmann::json;

// Numbers a double holds exactly: beyond, "1e17" would not say which integer is meant.
constexpr double kExactIntegers = 9007199254740992.0;

std::string joined(const std::vector<std::string>& words, std::string_view separator) {
  std::string text;
  for (const std::string& word : words) {
    if (!text.empty()) text += separator;
    text += word;
  }
  return text;
}

[[noreturn]] void reject(const std::string& where, const std::string& found, const std::string& expected) {
  throw ConfigError(where + ": found " + found + ", expected " + expected);
}

// A JSON number as an integer of type T; nullopt for fractions and what T cannot hold.
template <class T>
std::optional<T> integer_from(const json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<std::uint64_t>();
    if (std::in_range<T>(number)) return static_cast<T>(number);
  } else if (value.is_number_integer()) {
    const auto number = value.get<std::int64_t>();
    if (std::in_range<T>(number)) return static_cast<T>(number);
  } else if (value.is_number_float()) {  // 1e6 is how people write a million
    const double number = value.get<double>();
    if (std::abs(number) <= kExactIntegers && number == std::floor(number)) {
      return integer_from<T>(json(static_cast<std::int64_t>(number)));
    }
  }
  return std::nullopt;
}

template <class T>
T integer_or_reject(const json& value, const std::string& where) {
  if (const std::optional<T> number = integer_from<T>(value)) return *number;
  reject(where, shown_json(value),
         fmt::format("an integer from {} to {}", std::numeric_limits<T>::min(), std::numeric_limits<T>::max()));
}

// A number as written on a command line, exact for 64-bit integers; nullopt when the text is anything else.
std::optional<json> number_from_text(std::string_view text) {
  if (text.starts_with('+')) text.remove_prefix(1);
  const char* end = text.data() + text.size();
  std::int64_t negative = 0;
  std::uint64_t natural = 0;
  double real = 0;
  if (const auto [last, error] = std::from_chars(text.data(), end, natural); error == std::errc() && last == end) {
    return json(natural);
  }
  if (const auto [last, error] = std::from_chars(text.data(), end, negative); error == std::errc() && last == end) {
    return json(negative);
  }
  if (const auto [last, error] = std::from_chars(text.data(), end, real);
      error == std::errc() && last == end && std::isfinite(real)) {
    return json(real);
  }
  return std::nullopt;
}

json bool_from_text(const std::string& text) {
  for (const char* yes : {"true", "1", "yes", "on"}) {
    if (text == yes) return true;
  }
  for (const char* no : {"false", "0", "no", "off"}) {
    if (text == no) return false;
  }
  return text;
}

// Without the spaces that people put around commas; empty items are dropped.
std::vector<std::string> split_at_commas(std::string_view text) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const std::size_t comma = std::min(text.find(','), text.size());
    std::string_view part = text.substr(0, comma);
    part.remove_prefix(std::min(part.find_first_not_of(" \t\r\n"), part.size()));
    part = part.substr(0, part.find_last_not_of(" \t\r\n") + 1);
    if (!part.empty()) parts.emplace_back(part);
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return parts;
}

// A list in one string: a JSON array, for items that hold commas, or items between commas.
std::vector<std::string> list_from_text(const std::string& text, const std::string& where) {
  if (!text.starts_with('[')) return split_at_commas(text);
  const json array = json::parse(text, nullptr, false);
  std::vector<std::string> items;
  if (array.is_array()) {
    for (const json& item : array) {
      if (item.is_string()) items.push_back(item.get<std::string>());
    }
  }
  if (!array.is_array() || items.size() != array.size()) {
    reject(where, shown_json(json(text)), "a JSON array of strings, or items separated by commas");
  }
  return items;
}

std::string flag_of(const std::string& name) {
  std::string text = "--" + name;
  for (char& c : text) {
    if (c == '_') c = '-';
  }
  return text;
}

std::string variable_of(const std::string& name) {
  std::string text = "NANOCHAT_" + name;
  for (char& c : text) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  return text;
}

template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};
template <class... Cases>
Overloaded(Cases...) -> Overloaded<Cases...>;  // clang 16 does not deduce it for aggregates

}  // namespace

Option::Option(std::string name, OptionField field, std::string help)
    : name_(std::move(name)), help_(std::move(help)), field_(field) {
  const json now = value();
  if (is_list()) {
    default_text_ = joined(now.get<std::vector<std::string>>(), ",");
  } else {
    default_text_ = now.is_string() ? now.get<std::string>() : now.dump();
  }
}

Option& Option::at_least(double minimum) {
  checks_.push_back([minimum](const json& value) {
    return value.get<double>() >= minimum ? std::string() : fmt::format("a number of at least {}", minimum);
  });
  return *this;
}

Option& Option::at_most(double maximum) {
  checks_.push_back([maximum](const json& value) {
    return value.get<double>() <= maximum ? std::string() : fmt::format("a number of at most {}", maximum);
  });
  return *this;
}

Option& Option::above(double minimum, double otherwise) {
  checks_.push_back([minimum, otherwise](const json& value) {
    const auto number = value.get<double>();
    return number > minimum || number == otherwise ? std::string()
                                                   : fmt::format("a number above {}, or {}", minimum, otherwise);
  });
  return *this;
}

Option& Option::one_of(std::vector<std::string> choices) {
  choices_ = std::move(choices);
  return *this;
}

Option& Option::check(std::function<std::string(const json&)> expected_or_empty) {
  checks_.push_back(std::move(expected_or_empty));
  return *this;
}

Option& Option::or_word(std::string word, std::int64_t number) {
  word_ = std::move(word);
  word_number_ = number;
  return *this;
}

Option& Option::comma_separated() {
  comma_separated_ = true;
  return *this;
}

Option& Option::formerly(std::string name) {
  former_ = std::move(name);
  return *this;
}

Option& Option::not_in_resolved() {
  in_resolved_ = false;
  return *this;
}

Option& Option::may_change() {
  may_change_ = true;
  return *this;
}

std::string Option::flag() const { return flag_of(name_); }

std::string Option::former_flag() const { return former_.empty() ? "" : flag_of(former_); }

std::string Option::environment() const { return variable_of(name_); }

std::string Option::type_name() const {
  const char* type = std::visit(
      Overloaded{[](bool*) { return ""; }, [](int*) { return "INT"; }, [](std::int64_t*) { return "INT"; },
                 [](std::uint64_t*) { return "INT"; }, [](double*) { return "FLOAT"; }, [](std::string*) { return "TEXT"; },
                 [](std::filesystem::path*) { return "PATH"; }, [](std::vector<std::string>*) { return "TEXT..."; }},
      field_);
  return word_.empty() ? type : type + ("|" + word_);
}

json Option::value() const {
  json now = std::visit(Overloaded{[](const std::filesystem::path* field) { return json(field->string()); },
                                   [](const auto* field) { return json(*field); }},
                        field_);
  return !word_.empty() && now == word_number_ ? json(word_) : now;
}

void Option::set_json(const json& value, const std::string& where, const std::string& source) {
  const auto checked = [&](const json& normal) {  // a field changes only when every check has passed
    const auto item_is_choice = [&](const json& item) {
      const std::string text = item.get<std::string>();
      for (const std::string& choice : choices_) {
        if (text == choice) return;
      }
      reject(where, shown_json(item), "one of " + joined(choices_, ", "));
    };
    if (!choices_.empty()) {
      if (normal.is_array()) {
        for (const json& item : normal) item_is_choice(item);
      } else {
        item_is_choice(normal.is_string() ? normal : json(normal.dump()));
      }
    }
    for (const auto& check : checks_) {
      if (const std::string expected = check(normal); !expected.empty()) reject(where, shown_json(normal), expected);
    }
  };
  std::visit(Overloaded{[&](bool* field) {
                          if (!value.is_boolean()) reject(where, shown_json(value), "true or false");
                          checked(value);
                          *field = value.get<bool>();
                        },
                        [&](double* field) {
                          if (!value.is_number()) reject(where, shown_json(value), "a number");
                          checked(value);
                          *field = value.get<double>();
                        },
                        [&](std::vector<std::string>* field) {
                          std::vector<std::string> items;
                          if (value.is_string()) {
                            items.push_back(value.get<std::string>());
                          } else {
                            if (!value.is_array()) reject(where, shown_json(value), "an array of strings");
                            for (const json& item : value) {
                              if (!item.is_string()) reject(where, shown_json(item) + " in the array", "strings only");
                              items.push_back(item.get<std::string>());
                            }
                          }
                          checked(json(items));
                          *field = std::move(items);
                        },
                        [&](auto* field) {
                          using T = std::remove_pointer_t<decltype(field)>;
                          if constexpr (std::is_integral_v<T>) {
                            if (!word_.empty() && value.is_string()) {
                              if (value != word_) reject(where, shown_json(value), "an integer, or " + word_);
                              *field = static_cast<T>(word_number_);
                              return;
                            }
                            const T number = integer_or_reject<T>(value, where);
                            checked(json(number));
                            *field = number;
                          } else {
                            if (!value.is_string()) reject(where, shown_json(value), "a string");
                            checked(value);
                            *field = value.get<std::string>();
                          }
                        }},
             field_);
  source_ = source;
}

void Option::set_text(const std::vector<std::string>& values, const std::string& where, const std::string& source) {
  if (is_list()) {
    json items = json::array();
    for (const std::string& value : values) {
      if (!comma_separated_) {
        items.push_back(value);
      } else {
        for (std::string& item : list_from_text(value, where)) items.push_back(std::move(item));
      }
    }
    return set_json(items, where, source);
  }
  if (values.size() != 1) reject(where, fmt::format("{} values", values.size()), "one value");
  const std::string& text = values.front();
  if (is_flag()) return set_json(bool_from_text(text), where, source);
  const bool is_text = std::holds_alternative<std::string*>(field_) || std::holds_alternative<std::filesystem::path*>(field_);
  set_json(is_text ? json(text) : number_from_text(text).value_or(json(text)), where, source);
}

Option& OptionList::add(std::string name, OptionField field, std::string help) {
  return options_.emplace_back(std::move(name), field, std::move(help));
}

Option* OptionList::find(std::string_view name) {
  for (Option& option : options_) {
    if (option.is_called(name)) return &option;
  }
  return nullptr;
}

void OptionList::apply_json(const json& object, const std::string& where) {
  if (!object.is_object()) reject(where, shown_json(object), "a JSON object of options");
  for (const auto& [key, value] : object.items()) {
    Option* option = find(key);
    if (option == nullptr) {
      std::vector<std::string> known;
      for (const Option& each : options_) known.push_back(each.name());
      const std::string close = nearest(key, known);
      throw ConfigError(where + ": unknown key \"" + key + "\"" +
                        (close.empty() ? "; --help lists the options" : ", did you mean \"" + close + "\"?"));
    }
    option->set_json(value, where + ": \"" + key + "\"", where);
  }
}

void OptionList::apply_file(const std::filesystem::path& file) {
  std::string text;
  try {
    text = read_file(file);
  } catch (const DataError& error) {  // the file that configures is a matter of configuration
    throw ConfigError(error.what());
  }
  json object;
  try {
    object = json::parse(text, nullptr, true, true);
  } catch (const json::parse_error& error) {
    const std::string_view before = std::string_view(text).substr(0, error.byte > 0 ? error.byte - 1 : 0);
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    const auto column = before.size() - (before.rfind('\n') + 1) + 1;
    throw ConfigError(fmt::format("{}:{}:{}: not valid JSON here", file.string(), line, column));
  } catch (const json::exception&) {  // the only other objection while parsing
    throw ConfigError(fmt::format("{}: holds a number beyond the range of double", file.string()));
  }
  apply_json(object, file.string());
}

void OptionList::apply_environment() {
  for (Option& option : options_) {
    std::string name = option.environment();
    const char* text = std::getenv(name.c_str());
    const auto is_unset = [&text] { return text == nullptr || *text == '\0'; };  // empty too, as in most shells' scripts
    if (is_unset() && !option.former_.empty()) {
      name = variable_of(option.former_);
      text = std::getenv(name.c_str());
    }
    if (is_unset()) continue;
    option.set_text(option.is_list() ? list_from_text(text, name) : std::vector<std::string>{text}, name, "environment");
  }
}

json OptionList::resolved() const {
  json object = json::object();
  for (const Option& option : options_) {
    if (option.in_resolved()) object[option.name()] = option.value();
  }
  return object;
}

std::vector<OptionDifference> OptionList::differences(const json& saved) const {
  std::vector<OptionDifference> found_differences;
  for (const Option& option : options_) {
    auto found = saved.find(option.name());
    if (found == saved.end() && !option.former_.empty()) found = saved.find(option.former_);
    if (!option.in_resolved() || found == saved.end()) continue;
    const json now = option.value();
    if (*found == now) continue;
    found_differences.push_back({option.name(), option.name() + ": " + shown_json(*found) + " → " + shown_json(now),
                                 option.is_changeable()});
  }
  return found_differences;
}

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  // Optimal string alignment: insertions, deletions, substitutions and swaps of neighbours, each at cost 1.
  const auto distance = [](std::string_view a, std::string_view b) {
    std::vector<std::size_t> before_last(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
    for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= a.size(); ++i) {
      before_last = std::exchange(last, row);
      row[0] = i;
      for (std::size_t j = 1; j <= b.size(); ++j) {
        row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
        if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
          row[j] = std::min(row[j], before_last[j - 2] + 1);
        }
      }
    }
    return row[b.size()];
  };
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(2, word.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const std::size_t d = distance(word, candidate);
    if (d < best_distance && d < std::max(word.size(), candidate.size())) {
      best = candidate;
      best_distance = d;
    }
  }
  // Half of a long name ("batch-size" for "device-batch-size") is far away letter by letter, but what was meant.
  constexpr std::size_t kTellingLength = 4;
  word.remove_prefix(std::min(word.find_first_not_of('-'), word.size()));
  if (best.empty() && word.size() >= kTellingLength) {
    for (const std::string& candidate : candidates) {
      if (candidate.find(word) == std::string::npos) continue;
      if (best.empty() || candidate.size() < best.size()) best = candidate;
    }
  }
  return best;
}

}  // namespace nanochat
