#pragma once
// A task: rows that become conversations, to train on or to be examined with. What a task is made of follows the
// reference's tasks/*.py. Scoring is evaluation's; what it needs stands in the example.

#include <cstdint>
#include <string>
#include <vector>

#include "tokenizer/conversation.h"

namespace nanochat {

enum class TaskKind {
  kConversation,  // to train on only; a mixture
  kCategorical,   // the answer is one of `letters`, read off the logits
  kGenerative,    // the answer is written, then compared
};

// How an answer is compared; is_right_answer of answers.h does, save for programs.
enum class AnswerRule {
  kNone,         // not at all
  kLetter,       // is answers[0], one of `letters`
  kFinalNumber,  // the number behind "#### " is answers[0]
  kStated,       // one of `answers` stands in it as a whole word
  kExact,        // is one of `answers`, calls of the calculator left out
  kProgram,      // a program: passes `test`
};

struct TaskExample {
  Conversation conversation;         // ends with the assistant's answer, the right one
  std::vector<std::string> letters;  // kCategorical: what may be answered, one token each
  std::string group;                 // a subject or topic to report by; may be empty
  AnswerRule rule = AnswerRule::kNone;
  std::vector<std::string> answers;  // any of these is right; empty for kNone and kProgram
  // kProgram: Python code that defines check(function), and the name of the function that the answer has to define.
  std::string test, entry_point;
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
