#pragma once
// Conversations and their rendering as token ids, equal to render_conversation
// and render_for_completion of the reference's tokenizer.py:
//
//   <|bos|> <|user_start|> … <|user_end|> <|assistant_start|> … <|assistant_end|> <|user_start|> …
//
// A system message may only be the first. It is put before the text of the first user message, with an
// empty line between. In an assistant's turn, a call of the calculator is <|python_start|> …
// <|python_end|> and its result is <|output_start|> … <|output_end|>. Supervised (mask 1) is what the
// model has to write: the assistant's text, the calls with their two special tokens, and
// <|assistant_end|>, except in messages that are not learned. Text that spells a special token stays text.
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
  bool learned = true;  // false: context only; no training stage uses the message as a target

  Message() = default;
  Message(std::string from, std::string text) : role(std::move(from)), parts{{PartType::kText, std::move(text)}} {}
  Message(std::string from, std::vector<MessagePart> content) : role(std::move(from)), parts(std::move(content)) {}
  std::string joined_text() const;  // the text parts, concatenated, without calls and their results
  bool operator==(const Message&) const = default;
};

struct Conversation {
  std::vector<Message> messages;
  bool operator==(const Conversation&) const = default;
};

struct RenderedConversation {
  std::vector<TokenId> ids;
  std::vector<std::uint8_t> mask;      // for each id: 1 if supervised
  std::vector<std::uint8_t> excluded;  // for each id: 1 if it belongs to a message that is not learned
  std::size_t whole_length = 0;        // number of tokens before truncation
  bool cut() const { return whole_length > ids.size(); }
};

inline constexpr std::int64_t kDefaultConversationTokens = 2048;  // the reference's max_tokens

// Throws DataError with the number of the message (from 1) if: there is none; the roles are not [system,]
// user, assistant, user, …; a part other than text is outside an assistant's turn; a system message is alone.
void check_conversation(const Conversation& conversation);

// Truncates to max_tokens (at least 1) on the right. Throws as check_conversation,
// and TokenizerError if the tokenizer lacks a special token of the chat format.
RenderedConversation render_conversation(const Tokenizer& tokenizer, const Conversation& conversation,
                                         std::int64_t max_tokens = kDefaultConversationTokens);

// The prompt for an assistant's answer: everything before the last message, which must be the
// assistant's (the reference answer of a task), truncated to max_tokens, then <|assistant_start|>.
std::vector<TokenId> render_for_completion(const Tokenizer& tokenizer, const Conversation& conversation,
                                           std::int64_t max_tokens = kDefaultConversationTokens);

// The same for a conversation that ends with the user's message, as in a chat or a server.
std::vector<TokenId> render_prompt(const Tokenizer& tokenizer, const Conversation& conversation, std::int64_t max_tokens);

// The prompt for the rest of an assistant's answer: the whole conversation, whose last message is the beginning of the answer,
// without the last <|assistant_end|>.
std::vector<TokenId> render_continuation(const Tokenizer& tokenizer, const Conversation& conversation, std::int64_t max_tokens);

}  // namespace nanochat
