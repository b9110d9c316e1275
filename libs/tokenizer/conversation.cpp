#include "tokenizer/conversation.h"

#include <algorithm>
#include <span>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "tokenizer/special_tokens.h"

namespace nanochat {
namespace {

// Writes ids and mask side by side.
class Renderer {
 public:
  explicit Renderer(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  void set_learned(bool learned) { learned_ = learned; }  // of what comes next
  void special(std::string_view name, bool supervised) {
    out_.ids.push_back(tokenizer_.require_special(name));
    fill_mask(supervised);
  }
  void text(std::string_view text, bool supervised) {
    tokenizer_.encode(text, out_.ids);
    fill_mask(supervised);
  }
  void assistant(const Message& message) {
    special(kAssistantStart, false);
    for (const MessagePart& part : message.parts) {
      switch (part.type) {
        case PartType::kText: text(part.text, true); break;
        case PartType::kPython:
          special(kPythonStart, true);
          text(part.text, true);
          special(kPythonEnd, true);
          break;
        case PartType::kPythonOutput:  // comes from the calculator when the model is used
          special(kOutputStart, false);
          text(part.text, false);
          special(kOutputEnd, false);
          break;
      }
    }
    special(kAssistantEnd, true);
  }
  void remove_last() {
    out_.ids.pop_back();
    out_.mask.pop_back();
    out_.excluded.pop_back();
  }
  RenderedConversation cut(std::int64_t max_tokens) && {
    const auto length = static_cast<std::size_t>(std::max<std::int64_t>(max_tokens, 1));
    out_.whole_length = out_.ids.size();
    if (out_.ids.size() > length) {
      out_.ids.resize(length);
      out_.mask.resize(length);
      out_.excluded.resize(length);
    }
    return std::move(out_);
  }

 private:
  void fill_mask(bool supervised) {
    out_.mask.resize(out_.ids.size(), supervised && learned_ ? 1 : 0);
    out_.excluded.resize(out_.ids.size(), learned_ ? 0 : 1);
  }

  const Tokenizer& tokenizer_;
  bool learned_ = true;
  RenderedConversation out_;
};

// With `open`, the last message is the assistant's and has no end.
RenderedConversation render(const Tokenizer& tokenizer, std::span<const Message> messages, std::int64_t max_tokens,
                            bool open = false) {
  Renderer renderer(tokenizer);
  renderer.special(kBos, false);
  std::string system;
  bool system_learned = true;
  if (!messages.empty() && messages.front().role == "system") {
    system = messages.front().joined_text() + "\n\n";
    system_learned = messages.front().learned;
    messages = messages.subspan(1);
  }
  for (const Message& message : messages) {
    renderer.set_learned(message.learned && system_learned);
    system_learned = true;
    if (message.role == "assistant") {
      renderer.assistant(message);
      continue;
    }
    renderer.special(kUserStart, false);
    renderer.text(system + message.joined_text(), false);  // encoded as one text: tokens may cross the border
    renderer.special(kUserEnd, false);
    system.clear();
  }
  if (open) renderer.remove_last();
  return std::move(renderer).cut(max_tokens);
}

std::vector<TokenId> prompt(const Tokenizer& tokenizer, std::span<const Message> messages, std::int64_t max_tokens) {
  std::vector<TokenId> ids = render(tokenizer, messages, max_tokens).ids;
  ids.push_back(tokenizer.require_special(kAssistantStart));
  return ids;
}

}  // namespace

std::string Message::joined_text() const {
  std::string joined;
  for (const MessagePart& part : parts) {
    if (part.type == PartType::kText) joined += part.text;
  }
  return joined;
}

void check_conversation(const Conversation& conversation) {
  const auto& messages = conversation.messages;
  if (messages.empty()) throw DataError("a conversation without messages");
  const std::size_t first = messages.front().role == "system" ? 1 : 0;
  if (messages.size() == first) throw DataError("message 1 is a system message, and no user message follows it");
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const Message& message = messages[i];
    const char* expected = i < first ? "system" : (i - first) % 2 == 0 ? "user" : "assistant";
    if (message.role != expected) {
      throw DataError(
          fmt::format("message {} is from \"{}\" where \"{}\" has to be: [system,] user, assistant, user, … is the order",
                      i + 1, message.role, expected));
    }
    const auto is_text = [](const MessagePart& part) { return part.type == PartType::kText; };
    if (message.role != "assistant" && !std::all_of(message.parts.begin(), message.parts.end(), is_text)) {
      throw DataError(fmt::format("message {} from \"{}\" has a python part, which only the assistant's may", i + 1,
                                  message.role));
    }
  }
}

RenderedConversation render_conversation(const Tokenizer& tokenizer, const Conversation& conversation,
                                         std::int64_t max_tokens) {
  check_conversation(conversation);
  return render(tokenizer, conversation.messages, max_tokens);
}

std::vector<TokenId> render_for_completion(const Tokenizer& tokenizer, const Conversation& conversation,
                                           std::int64_t max_tokens) {
  check_conversation(conversation);
  const std::span<const Message> messages(conversation.messages);
  if (messages.back().role != "assistant") throw DataError("a conversation to complete must end with the assistant's answer");
  return prompt(tokenizer, messages.first(messages.size() - 1), max_tokens);
}

std::vector<TokenId> render_prompt(const Tokenizer& tokenizer, const Conversation& conversation, std::int64_t max_tokens) {
  check_conversation(conversation);
  if (conversation.messages.back().role != "user") throw DataError("a conversation to answer must end with the user's message");
  return prompt(tokenizer, conversation.messages, max_tokens);
}

std::vector<TokenId> render_continuation(const Tokenizer& tokenizer, const Conversation& conversation,
                                         std::int64_t max_tokens) {
  check_conversation(conversation);
  if (conversation.messages.back().role != "assistant") {
    throw DataError("a conversation to continue must end with the beginning of the assistant's answer");
  }
  return render(tokenizer, conversation.messages, max_tokens, true).ids;
}

}  // namespace nanochat
