#pragma once
// Conversations and their rendering to token ids, the same as render_conversation and render_for_completion of the
// reference's tokenizer.py:
//
//   <|bos|> <|user_start|> … <|user_end|> <|assistant_start|> … <|assistant_end|> <|user_start|> …
//
// A system message, only ever the first, is put before the text of the first user message with an empty line between.
// Inside an assistant's turn a call of the calculator is <|python_start|> … <|python_end|>, what it gave back
// <|output_start|> … <|output_end|>. Supervised (mask 1) is what the model itself has to write: the assistant's text,
// the calls with their two marks, and <|assistant_end|>; nothing of a message that is not learned. Text that spells a
// special token stays text.
//
// Free functions of immutable arguments: thread-safe.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace nanochat {

enum class PartType { kText, kPython, kPythonOutput };

struct MessagePart {
  PartType type = PartType::kText;
  std::string text;  // UTF-8
  bool operator==(const MessagePart&) const = default;
};

struct Message {
  std::string role;  // "system", "user" or "assistant"
  std::vector<MessagePart> parts;
  bool learned = true;  // false: only context for what follows; no stage of training takes a target from the message

  Message() = default;
  Message(std::string from, std::string text) : role(std::move(from)), parts{{PartType::kText, std::move(text)}} {}
  Message(std::string from, std::vector<MessagePart> content) : role(std::move(from)), parts(std::move(content)) {}
  std::string joined_text() const;  // the text parts one after the other; calls and their outputs left out
  bool operator==(const Message&) const = default;
};

struct Conversation {
  std::vector<Message> messages;
  bool operator==(const Conversation&) const = default;
};

struct RenderedConversation {
  std::vector<TokenId> ids;
  std::vector<std::uint8_t> mask;      // one for each id; 1: supervised
  std::vector<std::uint8_t> excluded;  // one for each id; 1: of a message that is not learned, with its marks
  std::size_t whole_length = 0;        // tokens before it was cut
  bool cut() const { return whole_length > ids.size(); }
};

inline constexpr std::int64_t kDefaultConversationTokens = 2048;  // the reference's max_tokens

// Throws DataError naming the message (counted from 1) when there is none; when the roles are not [system,] user,
// assistant, user, …; when a part that is not text stands outside an assistant's turn; when a system message comes alone.
void check_conversation(const Conversation& conversation);

// Cut to max_tokens (at least 1) from the right. Throws as check_conversation, and TokenizerError when the tokenizer
// lacks a special token of the chat format.
RenderedConversation render_conversation(const Tokenizer& tokenizer, const Conversation& conversation,
                                         std::int64_t max_tokens = kDefaultConversationTokens);

// The prompt that lets the assistant answer: everything before the last message, which must be the assistant's (the
// reference answer of a task), cut to max_tokens, then <|assistant_start|>.
std::vector<TokenId> render_for_completion(const Tokenizer& tokenizer, const Conversation& conversation,
                                           std::int64_t max_tokens = kDefaultConversationTokens);

// The same for a conversation that ends with the user's message: what a chat or a server has.
std::vector<TokenId> render_prompt(const Tokenizer& tokenizer, const Conversation& conversation,
                                   std::int64_t max_tokens);

}  // namespace nanochat
