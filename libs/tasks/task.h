#pragma once
// A task: rows that become conversations for training or evaluation. Tasks follow the
// reference's tasks/*.py. Scoring is in evaluation; the example has what scoring needs.

#include <cstdint>
#include <string>
#include <vector>

#include "tokenizer/conversation.h"

namespace nanochat {

enum class TaskKind {
  kConversation,  // for training only; a mixture
  kCategorical,   // the answer is one of `letters`, by the logits
  kGenerative,    // the answer is generated, then compared
};

// How an answer is compared, by is_right_answer of answers.h, except for programs.
enum class AnswerRule {
  kNone,         // not at all
  kLetter,       // is answers[0], one of `letters`
  kFinalNumber,  // the number after "#### " is answers[0]
  kStated,       // one of `answers` occurs in it as a whole word
  kExact,        // equals one of `answers`, without calls of the calculator
  kProgram,      // a program: passes `test`
};

struct TaskExample {
  Conversation conversation;         // ends with the assistant's correct answer
  std::vector<std::string> letters;  // kCategorical: the possible answers, one token each
  std::string group;                 // a subject or topic to report by; may be empty
  AnswerRule rule = AnswerRule::kNone;
  std::vector<std::string> answers;  // each of these is correct; empty for kNone and kProgram
  // kProgram: Python code that defines check(function), and the name of the function that the answer must define.
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
