#pragma once
// Converts chats of OpenAI's API, with functions, calls and results, to conversations of the
// chat format, which has only system, user and assistant. The server and the readers of training
// data both use this class, so a model sees requests in the form that it was trained on:
//
//   available functions   at the end of the system message, one line of JSON each
//   a call                a line {"name":"f","arguments":{...}} of the assistant's text
//   a result              text of the user: "Result of f:", a line break and the result
//
//   ChatHistory history;
//   history.add_user("Weather?");
//   history.add_assistant({}, {{.name = "weather", .arguments = R"({"city":"Paris"})"}});
//   history.add_result({.name = "weather"}, "sunny");
//   const Conversation conversation = std::move(history).take();

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "tokenizer/conversation.h"

namespace nanochat {

struct FunctionCall {
  std::string name;
  std::string arguments = "{}";  // a JSON object as text; other text becomes a JSON string
  std::string id = {};           // the id by which a result names the call; may be empty
};

// {"name":"f","arguments":{...}}
std::string call_text(const FunctionCall& call);

// A function's description is {"name", "description", "parameters"}, with its
// keys in their order. Returns an empty string if there are no functions.
std::string describe_functions(const std::vector<nlohmann::ordered_json>& functions);

// Result of the model's calculator. `offset` is the number of characters
// of the text before the call (the server's "nanochat_calculations").
struct Calculation {
  std::string expression, result;
  std::int64_t offset = 0;
};

// An assistant's text with its calculations as parts. Offsets must not decrease and must not exceed the text's length.
std::vector<MessagePart> with_calculations(const std::string& text, const std::vector<Calculation>& calculations);

// The inverse: the calculations of such parts; the text is Message::joined_text(). A call without a result is left out.
std::vector<Calculation> calculations_of(const std::vector<MessagePart>& parts);

// Identifies the call that a result belongs to.
struct ResultSource {
  std::string id = {}, name = {};
};

// Not thread-safe.
class ChatHistory {
 public:
  // `learned` is that of Message. A joined message is learned if all its messages are learned.
  //
  // System messages are joined at the front with an empty line between them, wherever they occur.
  void add_system(const std::string& text, bool learned = true);
  // Consecutive messages of the same role become one message with an empty line between their texts.
  void add_user(const std::string& text, bool learned = true);
  void add_assistant(std::vector<MessagePart> parts, const std::vector<FunctionCall>& calls = {}, bool learned = true);
  // Without a name, the result belongs to the call with this id; without an id, to the first call without a result.
  void add_result(const ResultSource& source, const std::string& text, bool learned = true);

  // `last` ends the system message, as describe_functions() does. The order of roles is not checked.
  Conversation take(const std::string& last = {}) &&;

 private:
  void add(Message message);

  Message system_ = {"system", std::string()};
  std::vector<Message> turns_;
  std::map<std::string, std::string> names_;  // names of the calls so far, by id
  std::vector<FunctionCall> open_;            // calls of the last assistant message that have no result yet
};

}  // namespace nanochat
