#include "checkpoint/json_file.h"

#include <set>
#include <vector>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/format.h"

namespace nanochat {
namespace {

using nlohmann::json;

// "[json.exception.parse_error.101] parse error at line 1, column 2: ..." without the library's own label, and
// without bytes of a binary file that a terminal could not show.
std::string plain_reason(const std::string& what) {
  const std::size_t label = what.find("] ");
  return on_one_line(replace_invalid_utf8(label == std::string::npos ? what : what.substr(label + 2)));
}

// Sees the parser's events before a tree exists.
class Guard {
 public:
  explicit Guard(const std::string& where) : where_(where) {}

  bool operator()(int depth, json::parse_event_t event, json& parsed) {
    switch (event) {
      case json::parse_event_t::object_start: keys_.emplace_back(); [[fallthrough]];
      case json::parse_event_t::array_start:
        if (depth >= kMaxJsonDepth) {
          throw CheckpointError(where_ + ": JSON nested deeper than " + std::to_string(kMaxJsonDepth) + " levels");
        }
        break;
      case json::parse_event_t::object_end: keys_.pop_back(); break;
      case json::parse_event_t::key:
        if (const auto& key = parsed.get_ref<const std::string&>(); !keys_.back().insert(key).second) {
          throw CheckpointError(where_ + ": key \"" + key + "\" is given twice");
        }
        break;
      default: break;
    }
    return true;
  }

 private:
  const std::string& where_;
  std::vector<std::set<std::string>> keys_;  // of the objects that are open
};

template <class Json>
std::string dump(const Json& value) {
  return value.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace

json parse_json_object(std::string_view text, const std::string& where) {
  json result;
  Guard guard(where);
  try {
    result = json::parse(text, std::ref(guard));
  } catch (const json::exception& error) {
    throw CheckpointError(where + ": not valid JSON: " + plain_reason(error.what()));
  }
  if (!result.is_object()) {
    throw CheckpointError(where + ": holds a JSON " + std::string(result.type_name()) + ", expected an object");
  }
  return result;
}

json read_json_object(const std::filesystem::path& path, std::size_t max_bytes) {
  std::string text;
  try {
    text = read_file(path, max_bytes);
  } catch (const DataError& error) {
    throw CheckpointError(error.what());
  }
  return parse_json_object(text, path.string());
}

std::string to_json_text(const json& value) { return dump(value); }
std::string to_json_text(const nlohmann::ordered_json& value) { return dump(value); }

}  // namespace nanochat
