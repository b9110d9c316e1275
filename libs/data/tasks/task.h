#pragma once
// A task: rows that become conversations, to train on or to be examined with. What a task is made of follows the
// reference's tasks/*.py. Scoring is evaluation's.

#include <cstdint>
#include <string>
#include <vector>

#include "tokenizer/conversation.h"

namespace nanochat {

enum class TaskKind {
  kConversation,  // to train on only
  kCategorical,   // the answer is one of `letters`, read off the logits
  kGenerative,    // the answer is written, then compared
};

struct TaskExample {
  Conversation conversation;         // ends with the assistant's answer, the right one
  std::vector<std::string> letters;  // kCategorical: what may be answered, one token each
  std::string group;                 // a subject or topic to report by; may be empty
};

// Immutable: thread-safe.
class Task {
 public:
  virtual ~Task() = default;
  virtual const std::string& name() const = 0;  // "gsm8k", "arc-easy"
  virtual TaskKind kind() const = 0;
  virtual std::int64_t size() const = 0;
  virtual TaskExample example(std::int64_t index) const = 0;  // 0 <= index < size()
};

}  // namespace nanochat
