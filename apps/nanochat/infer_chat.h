#pragma once
// The conversation of `nanochat infer --chat`.

#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/errors.h"
#include "inference/generator.h"
#include "tokenizer/conversation.h"

namespace nanochat {
struct LoadedModel;
}

namespace nanochat::cli {

struct Context;

// Who answers in a chat: a model in this process, or one behind a server.
class ChatModel {
 public:
  struct Answer {
    Message message;
    FinishReason reason = FinishReason::kStop;
    std::int64_t tokens = 0;
    nlohmann::ordered_json details = nlohmann::ordered_json::object();  // further members of the object that --json prints
  };
  using OnText = std::function<void(std::string_view)>;

  virtual ~ChatModel() = default;
  // Answers the last message, the user's. `on_text` gets the text as it comes, with calls of the calculator as "<<6*7=42>>".
  // An interrupt ends the answer with kCancelled.
  virtual Answer answer(const Conversation& conversation, const OnText& on_text) = 0;
};

// Throws CheckpointError when the model's tokenizer has no chat tokens. `loaded` must outlive the result.
std::unique_ptr<ChatModel> local_chat_model(const LoadedModel& loaded, const GenerationOptions& generation);

// "stop", "length" or "cancelled".
const char* name_of(FinishReason reason);

// Says that a conversation is longer than the context, once each time that more messages do not fit.
class DroppedMessages {
 public:
  void report(std::size_t dropped, std::string_view context);  // "the context of 96 tokens"

 private:
  std::size_t reported_ = 0;
};

// Reads messages and commands (/help) a line each from standard input until it ends; answers go to standard output, all
// else to standard error.
ExitCode chat(ChatModel& model, const Context& context);

}  // namespace nanochat::cli
