// What a row of a file says as a conversation: the forms of data/conversations/conversations.h.
#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include "core/format.h"
#include "core/utf8.h"
#include "data/conversations/conversations.h"
#include "data/rows/rows.h"
#include "tokenizer/chat_history.h"

namespace nanochat {
namespace {

using Json = nlohmann::ordered_json;  // calls and functions are rendered with their keys in order

constexpr const char* kForms =
    "a conversation is a list of messages ({\"role\", \"content\"} or {\"from\", \"value\"}), bare or under \"messages\" or "
    "\"conversations\", or {\"instruction\", \"input\", \"output\"}, {\"prompt\", \"completion\"}, {\"question\", \"answer\"}, "
    "{\"query\", \"response\"} or {\"input\", \"output\"}";

struct ListForm {
  ConversationForm form;
  const char* key;
};
constexpr std::array kListForms = {ListForm{ConversationForm::kMessages, "messages"},
                                   ListForm{ConversationForm::kShareGpt, "conversations"},
                                   ListForm{ConversationForm::kConversation, "conversation"}};

struct PairForm {
  ConversationForm form;
  const char* question;
  std::array<const char*, 2> answers;  // the first that a row has
  std::array<const char*, 2> details;  // of the question, after an empty line; null: none
};
constexpr std::array kPairForms = {
    PairForm{ConversationForm::kAlpaca, "instruction", {"output", "response"}, {"input", "context"}},
    PairForm{ConversationForm::kPromptCompletion, "prompt", {"completion", "response"}, {nullptr, nullptr}},
    PairForm{ConversationForm::kQuestionAnswer, "question", {"answer", "response"}, {"context", nullptr}},
    PairForm{ConversationForm::kQueryResponse, "query", {"response", "answer"}, {nullptr, nullptr}},
    PairForm{ConversationForm::kInputOutput, "input", {"output", "output"}, {nullptr, nullptr}}};

constexpr std::array kSystemKeys = {"system", "system_prompt"};
constexpr std::array kFunctionKeys = {"tools", "functions"};
constexpr std::array kRowFlags = {"weight", "train"};
constexpr std::array kMessageFlags = {"weight", "train", "training", "trainable", "loss", "loss_weight", "loss_scale"};
// What would change a conversation and cannot be followed: of a row and of a message, and of a message alone.
constexpr std::array kMedia = {"image", "images", "audio", "audios", "video", "videos"};
constexpr std::array kPartialFlags = {"mask", "masked", "loss_mask", "train_detail", "train_details", "training_detail"};

enum class Role { kSystem, kUser, kAssistant, kCall, kResult };

// Names in lower case with '_' for '-'.
std::optional<Role> role_of(std::string name) {
  for (char& c : name) c = c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  static const std::map<std::string, Role> roles = {{"system", Role::kSystem},
                                                    {"developer", Role::kSystem},
                                                    {"user", Role::kUser},
                                                    {"human", Role::kUser},
                                                    {"prompter", Role::kUser},
                                                    {"assistant", Role::kAssistant},
                                                    {"gpt", Role::kAssistant},
                                                    {"chatgpt", Role::kAssistant},
                                                    {"bing", Role::kAssistant},
                                                    {"bard", Role::kAssistant},
                                                    {"claude", Role::kAssistant},
                                                    {"gemini", Role::kAssistant},
                                                    {"model", Role::kAssistant},
                                                    {"bot", Role::kAssistant},
                                                    {"chatbot", Role::kAssistant},
                                                    {"ai", Role::kAssistant},
                                                    {"function_call", Role::kCall},
                                                    {"tool_call", Role::kCall},
                                                    {"tool_calls", Role::kCall},
                                                    {"tool", Role::kResult},
                                                    {"function", Role::kResult},
                                                    {"observation", Role::kResult},
                                                    {"function_response", Role::kResult},
                                                    {"function_result", Role::kResult},
                                                    {"tool_response", Role::kResult},
                                                    {"tool_result", Role::kResult},
                                                    {"ipython", Role::kResult}};
  const auto found = roles.find(name);
  return found == roles.end() ? std::nullopt : std::optional(found->second);
}

template <class AnyJson>
const AnyJson* find(const AnyJson& object, const char* key) {
  if (key == nullptr || !object.is_object()) return nullptr;
  const auto found = object.find(key);
  // Parquet gives every row every column: what a row does not have is null there.
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

template <class AnyJson>
std::optional<ConversationForm> form_of(const AnyJson& row) {
  if (row.is_array()) return ConversationForm::kArray;
  for (const ListForm& list : kListForms) {
    if (find(row, list.key) != nullptr) return list.form;
  }
  for (const PairForm& pair : kPairForms) {
    const bool answered = std::any_of(pair.answers.begin(), pair.answers.end(),
                                      [&](const char* key) { return find(row, key) != nullptr; });
    if (find(row, pair.question) != nullptr && answered) return pair.form;
  }
  return std::nullopt;
}

// Says nothing: null, "", [] or {}.
bool is_vacant(const Json& value) {
  return value.empty() || (value.is_string() && value.get_ref<const std::string&>().empty());
}

std::string text_of(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

[[noreturn]] void fail(const char* kind, const std::string& what) { throw ConversationError(kind, what); }

class RowParser {
 public:
  RowParser(const Json& row, UnreadKeys* unread) : row_(row), unread_(unread) {}

  Conversation parse() {
    const auto form = form_of(row_);
    if (!form) fail("missing-text", fmt::format("found {}; {}", found(), kForms));
    if (row_.is_object()) {
      refuse(row_, kMedia, "");
      row_learned_ = row_flag();
      for (const char* key : kSystemKeys) system(key);
    }
    const auto list = std::find_if(kListForms.begin(), kListForms.end(),
                                   [&](const ListForm& one) { return one.form == *form; });
    const auto pair = std::find_if(kPairForms.begin(), kPairForms.end(),
                                   [&](const PairForm& one) { return one.form == *form; });
    if (list != kListForms.end()) {
      messages(*read(list->key), list->key);
    } else if (pair != kPairForms.end()) {
      question_and_answer(*pair);
    } else {
      messages(row_, "messages");
    }
    if (number_ == 0) fail("no-messages", "a conversation without messages");
    if (!before_) fail("no-messages", "there is only a system message");
    const std::string offered = row_.is_object() ? functions() : std::string();
    note_unread(row_, read_, "");
    return std::move(history_).take(offered);
  }

 private:
  using Keys = std::set<std::string_view>;

  std::string found() const {
    if (!row_.is_object()) return fmt::format("JSON {}", row_.type_name());
    std::vector<std::string> keys;
    for (const auto& item : row_.items()) keys.push_back(item.key());
    return keys.empty() ? "no key" : fmt::format("the keys {}", fmt::join(keys, ", "));
  }

  // Of the row; null when it does not have the key.
  const Json* read(const char* key) {
    const Json* value = find(row_, key);
    if (value != nullptr) read_.insert(key);
    return value;
  }

  // ---- What must not be passed over in silence ----

  void note(const std::string& key) {
    if (unread_ == nullptr) return;
    const auto known = unread_->find(key);
    if (known != unread_->end()) {
      ++known->second;
    } else if (unread_->size() < kMostUnreadKeys) {
      unread_->emplace(key, 1);
    }
  }
  void note_unread(const Json& object, const Keys& used, const char* prefix) {
    if (!object.is_object()) return;
    for (const auto& item : object.items()) {
      if (!is_vacant(item.value()) && !used.contains(item.key())) note(prefix + replace_invalid_utf8(item.key()));
    }
  }

  template <class List>
  static void refuse(const Json& object, const List& keys, const std::string& of) {
    for (const char* key : keys) {
      const Json* value = find(object, key);
      if (value != nullptr && !is_vacant(*value)) {
        fail("unsupported-key", fmt::format("\"{}\"{} changes what is learned, and nothing here can follow it", key, of));
      }
    }
  }

  // Whether something is learned, as its keys say it; nullopt when none does.
  static std::optional<bool> flag(const Json& value, const std::string& name) {
    if (value.is_boolean()) return value.get<bool>();
    if (value.is_number() && (value == 0 || value == 1)) return value == 1;
    fail("wrong-weight", fmt::format("{} is {}, expected 0, 1, false or true", name, text_of(value)));
  }
  std::optional<bool> message_flag(const Json& message, Keys& used) const {
    std::optional<bool> learned;
    for (const char* key : kMessageFlags) {
      const Json* value = find(message, key);
      if (value == nullptr) continue;
      used.insert(key);
      learned = *flag(*value, fmt::format("\"{}\" of message {}", key, number_)) && learned.value_or(true);
    }
    return learned;
  }
  bool row_flag() {
    bool learned = true;
    for (const char* key : kRowFlags) {
      const Json* value = find(row_, key);
      if (value == nullptr || !(value->is_boolean() || value->is_number())) continue;  // the name of a split, say
      read_.insert(key);
      learned = *flag(*value, fmt::format("\"{}\" of the row", key)) && learned;
    }
    return learned;
  }

  // ---- Messages ----

  void messages(const Json& list, const char* key) {
    if (!list.is_array())
      fail("no-messages", fmt::format("\"{}\" is JSON {}, expected a list of messages", key, list.type_name()));
    for (const Json& one : list) message(one, true);
  }

  // `answers_learned`: where a message of the assistant does not say it itself.
  void message(const Json& value, bool answers_learned) {
    ++number_;
    if (!value.is_object()) {
      fail("wrong-content", fmt::format("message {} is JSON {}, expected an object", number_, value.type_name()));
    }
    Keys used;
    const char* role_key = find(value, "role") != nullptr ? "role" : "from";
    const char* other_key = std::string_view(role_key) == "role" ? "value" : "content";
    const char* content_key = std::string_view(role_key) == "role" ? "content" : "value";
    if (find(value, content_key) == nullptr && find(value, other_key) != nullptr) content_key = other_key;
    used.insert({role_key, content_key});
    const Json* name = find(value, role_key);
    const std::string role_name = name != nullptr && name->is_string() ? name->get<std::string>() : std::string();
    const std::optional<Role> role = role_of(role_name);
    if (!role) {
      fail("wrong-role", name == nullptr ? fmt::format("message {} has no \"role\"", number_)
                                         : fmt::format("message {} is from \"{}\", expected system, user, assistant or "
                                                       "tool",
                                                       number_, name->is_string() ? role_name : text_of(*name)));
    }
    refuse(value, kMedia, fmt::format(" of message {}", number_));
    refuse(value, kPartialFlags, fmt::format(" of message {}", number_));
    const std::optional<bool> flagged = message_flag(value, used);
    if (flagged == true && *role != Role::kAssistant && *role != Role::kCall) {
      note("messages[].weight of 1 outside of the assistant's messages");
    }
    const bool answers = *role == Role::kAssistant || *role == Role::kCall;
    const bool learned = row_learned_ && flagged.value_or(answers ? answers_learned : true);
    const Json* content = find(value, content_key);
    switch (*role) {
      case Role::kSystem:
        begin_turn(*role, role_name, false, learned);
        if (const std::string text = joined(content_of(content, content_key)); !beside_.contains(text))
          history_.add_system(text, learned);
        break;
      case Role::kUser:
        begin_turn(*role, role_name, false, learned);
        history_.add_user(joined(content_of(content, content_key)), learned);
        break;
      case Role::kAssistant: {
        const std::vector<FunctionCall> calls = calls_of_message(value, used);
        begin_turn(*role, role_name, !calls.empty(), learned);
        const bool silent = content == nullptr && !calls.empty();
        std::vector<MessagePart> parts = silent ? std::vector<MessagePart>() : content_of(content, content_key, true);
        history_.add_assistant(calculated(value, std::move(parts), used), calls, learned);
        break;
      }
      case Role::kCall:
        begin_turn(Role::kAssistant, role_name, true, learned);
        history_.add_assistant({}, calls_in_content(content, content_key), learned);
        break;
      case Role::kResult: {
        begin_turn(*role, role_name, false, learned);
        const ResultSource source = {.id = string_of(value, "tool_call_id", used), .name = string_of(value, "name", used)};
        history_.add_result(source, joined(content_of(content, content_key)), learned);
        break;
      }
    }
    note_unread(value, used, "messages[].");
  }

  static std::string string_of(const Json& message, const char* key, Keys& used) {
    const Json* value = find(message, key);
    if (value == nullptr || !value->is_string()) return {};
    used.insert(key);
    return value->get<std::string>();
  }

  // [system,] user, assistant, user, … where results of functions come in place of the user, and where what belongs to calls
  // joins its neighbour.
  void begin_turn(Role role, const std::string& name, bool calls, bool learned) {
    const bool after_user = before_ == Role::kUser, after_assistant = before_ == Role::kAssistant;
    const bool joins = after_assistant && (calls || calls_before_);
    const char* expected = nullptr;
    if (role == Role::kSystem) {
      if (before_) expected = after_assistant ? "user" : "assistant";
    } else if (role == Role::kUser) {
      if (after_user) expected = "assistant";
    } else if (role == Role::kResult) {
      if (!before_) expected = "user";
      if (after_user) expected = "assistant";
    } else if (!before_ || (after_assistant && !joins)) {
      expected = "user";
    }
    if (expected != nullptr) {
      fail("wrong-role",
           fmt::format("message {} is from \"{}\" where \"{}\" has to be: [system,] user, assistant, user, … is the order",
                       number_, name, expected));
    }
    if (role == Role::kSystem) return;
    if (joins && role == Role::kAssistant && learned != learned_before_) {
      fail("wrong-weight", fmt::format("messages {} and {} are one turn of the assistant, but only one of them is learned",
                                       number_ - 1, number_));
    }
    before_ = role;
    calls_before_ = calls;
    learned_before_ = learned;
  }

  std::vector<MessagePart> content_of(const Json* content, const char* key, bool assistant = false) const {
    if (content == nullptr) fail("empty-content", fmt::format("message {} has no \"{}\"", number_, key));
    if (content->is_string()) return {{PartType::kText, content->get<std::string>()}};
    if (!content->is_array()) {
      fail("wrong-content", fmt::format("\"{}\" of message {} is JSON {}, expected a string or a list of parts", key, number_,
                                        content->type_name()));
    }
    std::vector<MessagePart> parts;
    for (const Json& part : *content) parts.push_back(part_of(part, assistant));
    return parts;
  }

  MessagePart part_of(const Json& part, bool assistant) const {
    static const std::map<std::string, PartType> types = {{"text", PartType::kText},
                                                          {"refusal", PartType::kText},
                                                          {"python", PartType::kPython},
                                                          {"python_output", PartType::kPythonOutput}};
    const Json* name = find(part, "type");
    const std::string type = name != nullptr && name->is_string() ? name->get<std::string>() : std::string();
    const auto known = types.find(type);
    if (known == types.end()) {
      fail("wrong-part",
           fmt::format("a part of message {} has the type \"{}\", expected text, python or python_output", number_, type));
    }
    if (known->second != PartType::kText && !assistant) {
      fail("wrong-part", fmt::format("message {} has a {} part, which only the assistant's may", number_, type));
    }
    refuse(part, kMessageFlags, fmt::format(" of a part of message {}", number_));
    const char* key = type == "refusal" ? "refusal" : "text";
    const Json* text = find(part, key);
    if (text == nullptr || !text->is_string())
      fail("wrong-part", fmt::format("a part of message {} has no \"{}\"", number_, key));
    return {known->second, text->get<std::string>()};
  }

  static std::string joined(const std::vector<MessagePart>& parts) {
    std::string text;
    for (const MessagePart& part : parts) text += part.text;
    return text;
  }

  // As the server's answers list what the calculator computed.
  std::vector<MessagePart> calculated(const Json& message, std::vector<MessagePart> parts, Keys& used) const {
    const char* key = "nanochat_calculations";
    used.insert(key);
    const Json* list = find(message, key);
    if (list == nullptr || is_vacant(*list)) return parts;
    const std::string text = joined(parts);
    const std::int64_t characters = utf8::count_characters(text);
    const bool is_text = std::all_of(parts.begin(), parts.end(),
                                     [](const MessagePart& part) { return part.type == PartType::kText; });
    std::vector<Calculation> calculations;
    for (const Json& one : *list) {
      const Json *expression = find(one, "expression"), *result = find(one, "result"), *offset = find(one, "offset");
      const std::int64_t least = calculations.empty() ? 0 : calculations.back().offset;
      const bool good = is_text && list->is_array() && expression != nullptr && expression->is_string() && result != nullptr &&
                        result->is_string() && offset != nullptr && offset->is_number_integer() &&
                        offset->get<std::int64_t>() >= least && offset->get<std::int64_t>() <= characters;
      if (!good) {
        fail("wrong-call",
             fmt::format("\"{}\" of message {} is not a list of expression, result and an offset in the order of the "
                         "content, which is text",
                         key, number_));
      }
      calculations.push_back({expression->get<std::string>(), result->get<std::string>(), offset->get<std::int64_t>()});
    }
    return with_calculations(text, calculations);
  }

  // ---- Functions ----

  static Json parsed(const std::string& text, const char* kind, const std::string& name) {
    Json value = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (value.is_discarded()) fail(kind, fmt::format("{} is not JSON", name));
    return value;
  }

  FunctionCall call_of(const Json& value) const {
    const Json* inside = find(value, "function");
    const Json& function = inside != nullptr && inside->is_object() ? *inside : value;
    const Json* type = find(value, "type");
    if (type != nullptr && *type != "function") {
      fail("wrong-call", fmt::format("a call of message {} has the type {}, expected \"function\"", number_, text_of(*type)));
    }
    const Json* name = find(function, "name");
    if (name == nullptr || !name->is_string() || is_vacant(*name))
      fail("wrong-call", fmt::format("a call of message {} has no \"name\"", number_));
    FunctionCall call = {.name = name->get<std::string>()};
    const Json* arguments = find(function, find(function, "arguments") != nullptr ? "arguments" : "parameters");
    if (arguments != nullptr && arguments->is_string()) {
      call.arguments = arguments->get<std::string>();
    } else if (arguments != nullptr && arguments->is_object()) {
      call.arguments = text_of(*arguments);
    } else if (arguments != nullptr) {
      fail("wrong-call", fmt::format("the arguments of \"{}\" of message {} are JSON {}, expected an object", call.name,
                                     number_, arguments->type_name()));
    }
    if (const Json* id = find(value, "id"); id != nullptr && id->is_string()) call.id = id->get<std::string>();
    return call;
  }

  std::vector<FunctionCall> calls_of_message(const Json& message, Keys& used) const {
    std::vector<FunctionCall> calls;
    used.insert({"function_call", "tool_calls"});
    if (const Json* one = find(message, "function_call"); one != nullptr && !is_vacant(*one)) calls.push_back(call_of(*one));
    const Json* list = find(message, "tool_calls");
    if (list == nullptr || is_vacant(*list)) return calls;
    if (!list->is_array()) {
      fail("wrong-call", fmt::format("\"tool_calls\" of message {} is JSON {}, expected a list", number_, list->type_name()));
    }
    for (const Json& one : *list) calls.push_back(call_of(one));
    return calls;
  }

  // One call or a list of them, as JSON or as the text of it.
  std::vector<FunctionCall> calls_in_content(const Json* content, const char* key) const {
    if (content == nullptr) fail("empty-content", fmt::format("message {} has no \"{}\"", number_, key));
    const std::string name = fmt::format("the call of message {}", number_);
    const Json value = content->is_string() ? parsed(content->get<std::string>(), "wrong-call", name) : *content;
    std::vector<FunctionCall> calls;
    if (!value.is_array()) return {call_of(value)};
    for (const Json& one : value) calls.push_back(call_of(one));
    if (calls.empty()) fail("wrong-call", name + " is an empty list");
    return calls;
  }

  // The description of the functions that the row offers.
  std::string functions() {
    std::vector<Json> descriptions;
    for (const char* key : kFunctionKeys) {
      const Json* value = read(key);
      if (value == nullptr || is_vacant(*value)) continue;
      const std::string name = fmt::format("\"{}\"", key);
      const Json list = value->is_string() ? parsed(value->get<std::string>(), "wrong-call", name) : *value;
      if (list.is_null()) continue;
      if (!list.is_array())
        fail("wrong-call", fmt::format("{} is JSON {}, expected a list of functions", name, list.type_name()));
      for (const Json& one : list) descriptions.push_back(description_of(one, name));
    }
    return describe_functions(descriptions);
  }

  static Json description_of(const Json& value, const std::string& list) {
    const Json tool = value.is_string() ? parsed(value.get<std::string>(), "wrong-call", "a function of " + list) : value;
    const Json* inside = find(tool, "function");
    const Json& function = inside != nullptr && inside->is_object() ? *inside : tool;
    const Json* name = find(function, "name");
    if (name == nullptr || !name->is_string()) fail("wrong-call", fmt::format("a function of {} has no \"name\"", list));
    return function;
  }

  // ---- What stands beside the messages, and rows that are a question and an answer ----

  void system(const char* key) {
    const Json* value = read(key);
    if (value == nullptr || is_vacant(*value)) return;
    if (!value->is_string())
      fail("wrong-content", fmt::format("\"{}\" is JSON {}, expected a string", key, value->type_name()));
    if (beside_.insert(value->get<std::string>()).second) history_.add_system(value->get<std::string>(), row_learned_);
  }

  std::string text(const char* key) {
    const Json* value = read(key);
    if (value == nullptr) return {};
    if (!value->is_string())
      fail("wrong-content", fmt::format("\"{}\" is JSON {}, expected a string", key, value->type_name()));
    return value->get<std::string>();
  }

  void user(const std::string& text) {
    ++number_;
    begin_turn(Role::kUser, "user", false, row_learned_);
    history_.add_user(text, row_learned_);
  }
  void assistant(std::string text) {
    ++number_;
    begin_turn(Role::kAssistant, "assistant", false, row_learned_);
    history_.add_assistant({{PartType::kText, std::move(text)}}, {}, row_learned_);
  }

  void question_and_answer(const PairForm& form) {
    if (const Json* label = find(row_, "label");
        label != nullptr && label->is_boolean() && form.form == ConversationForm::kPromptCompletion) {
      if (!label->get<bool>())
        fail("unsupported-key", "\"label\" is false: this completion is an example of what not to answer");
      read_.insert("label");
    }
    const Json& question = *read(form.question);
    if (question.is_array()) {  // as in TRL, only the completion is learned
      for (const Json& one : question) message(one, false);
    } else {
      history();
      std::string asked = text(form.question);
      for (const char* key : form.details) {
        if (key == nullptr) continue;
        if (const std::string more = text(key); !more.empty()) asked += "\n\n" + more;
      }
      user(asked);
    }
    const char* answer_key = *std::find_if(form.answers.begin(), form.answers.end(),
                                           [&](const char* key) { return find(row_, key) != nullptr; });
    const Json& answer = *read(answer_key);
    if (answer.is_array()) {
      for (const Json& one : answer) message(one, true);
    } else {
      assistant(text(answer_key));
    }
  }

  void history() {
    const Json* turns = read("history");
    if (turns == nullptr) return;
    if (!turns->is_array()) fail("wrong-content", "\"history\" is no list of [question, answer]");
    for (const Json& turn : *turns) {
      if (!turn.is_array() || turn.size() != 2 || !turn[0].is_string() || !turn[1].is_string()) {
        fail("wrong-content", "\"history\" is no list of [question, answer]");
      }
      user(turn[0].get<std::string>());
      assistant(turn[1].get<std::string>());
    }
  }

  const Json& row_;
  UnreadKeys* unread_;
  Keys read_;  // of the row
  std::set<std::string> beside_;  // system messages beside the list, which often holds them too
  ChatHistory history_;
  std::size_t number_ = 0;  // of the message, from 1
  bool row_learned_ = true;
  std::optional<Role> before_;  // of the message before, of those that are not system messages
  bool calls_before_ = false, learned_before_ = true;
};

}  // namespace

std::optional<ConversationForm> conversation_form(const nlohmann::json& row) { return form_of(row); }

const char* name_of(ConversationForm form) {
  for (const ListForm& list : kListForms) {
    if (list.form == form) return list.key;
  }
  switch (form) {
    case ConversationForm::kAlpaca: return "instruction and output";
    case ConversationForm::kPromptCompletion: return "prompt and completion";
    case ConversationForm::kQuestionAnswer: return "question and answer";
    case ConversationForm::kQueryResponse: return "query and response";
    case ConversationForm::kInputOutput: return "input and output";
    default: return "a bare array";
  }
}

const std::vector<std::string>& conversation_columns() {
  static const std::vector<std::string> columns = [] {
    std::set<std::string> keys = {"history", "label"};
    for (const ListForm& list : kListForms) keys.insert(list.key);
    for (const PairForm& pair : kPairForms) {
      keys.insert(pair.question);
      keys.insert(pair.answers.begin(), pair.answers.end());
      for (const char* key : pair.details) {
        if (key != nullptr) keys.insert(key);
      }
    }
    keys.insert(kSystemKeys.begin(), kSystemKeys.end());
    keys.insert(kFunctionKeys.begin(), kFunctionKeys.end());
    keys.insert(kRowFlags.begin(), kRowFlags.end());
    keys.insert(kMedia.begin(), kMedia.end());
    return std::vector<std::string>(keys.begin(), keys.end());
  }();
  return columns;
}

Conversation parse_conversation(const Json& row, UnreadKeys* unread) { return RowParser(row, unread).parse(); }

Conversation parse_conversation_row(const Row& row, UnreadKeys* unread) {
  // The order of keys is seen where functions are described or called.
  const bool ordered = row.text.find("tool") != std::string_view::npos || row.text.find("function") != std::string_view::npos;
  return parse_conversation(ordered ? value_in_order(row) : Json(row.value), unread);
}

}  // namespace nanochat
