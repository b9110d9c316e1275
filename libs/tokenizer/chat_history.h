#pragma once
// Chats in the words of OpenAI's API, with functions, their calls and their results, as conversations of the chat format,
// which knows system, user and assistant alone. The server renders the messages of a request with this class, and the
// readers of training data render theirs, so that a model is asked in the form it was trained on:
//
//   functions on offer   end the system message, each described by a line of JSON
//   a call               is a line {"name":"f","arguments":{...}} of the assistant's text
//   a result             is the user's text "Result of f:", a line break, and the result
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
  std::string arguments = "{}";  // the text of a JSON object; anything else becomes a JSON string
  std::string id = {};           // by which a result names the call; may be empty
};

// {"name":"f","arguments":{...}}
std::string call_text(const FunctionCall& call);

// A function's description is {"name", "description", "parameters"}, written with its keys in their order. Empty without
// functions.
std::string describe_functions(const std::vector<nlohmann::ordered_json>& functions);

// What the model's own calculator computed, before the character of the text that `offset` counts to (the server's
// "nanochat_calculations").
struct Calculation {
  std::string expression, result;
  std::int64_t offset = 0;
};

// An assistant's text with its calculations as parts. Their offsets must not decrease, nor be behind the end of the text.
std::vector<MessagePart> with_calculations(const std::string& text, const std::vector<Calculation>& calculations);

// What a result says of the call that it belongs to.
struct ResultSource {
  std::string id = {}, name = {};
};

// Not thread-safe.
class ChatHistory {
 public:
  // `learned` is that of Message; a message joined from several is learned when each of them is.
  //
  // Wherever they come, system messages stand together in front, with an empty line between them.
  void add_system(const std::string& text, bool learned = true);
  // Neighbours of the same role become one message, with an empty line between their texts.
  void add_user(const std::string& text, bool learned = true);
  void add_assistant(std::vector<MessagePart> parts, const std::vector<FunctionCall>& calls = {}, bool learned = true);
  // Without a name it is that of the call with this id, or without an id that of the first call which has no result yet.
  void add_result(const ResultSource& source, const std::string& text, bool learned = true);

  // `last`: ends the system message, as describe_functions() does. The order of roles is not checked.
  Conversation take(const std::string& last = {}) &&;

 private:
  void add(Message message);

  Message system_ = {"system", std::string()};
  std::vector<Message> turns_;
  std::map<std::string, std::string> names_;  // of the calls so far, by their id
  std::vector<FunctionCall> open_;            // calls of the assistant's last message that have no result yet
};

}  // namespace nanochat
