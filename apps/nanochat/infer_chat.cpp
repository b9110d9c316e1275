#include "infer_chat.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "checkpoint/checkpoint.h"
#include "command_line.h"
#include "core/atomic_file.h"
#include "core/format.h"
#include "core/interrupt.h"
#include "core/log.h"
#include "core/random.h"
#include "data/conversations/conversations.h"
#include "inference/chat.h"
#include "line_input.h"
#include "model/gpt.h"
#include "tokenizer/special_tokens.h"

namespace nanochat::cli {
namespace {

constexpr const char* kHelp =
    "Write a message and press Enter. Ctrl-C stops an answer. Commands:\n"
    "  /system TEXT  what the model is told before the conversation; without TEXT: nothing\n"
    "  /reset        begin a new conversation\n"
    "  /save FILE    write the conversation as a line of JSON\n"
    "  /load FILE    go on with the conversation in a file\n"
    "  /help         this\n"
    "  /exit         end, as Ctrl-D does\n";

void write(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    throw IoError("cannot write to standard output");
  }
}

bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\r") == std::string_view::npos; }

class ChatSession {
 public:
  ChatSession(ChatModel& model, const Context& context)
      : model_(model), context_(context), terminal_(::isatty(STDIN_FILENO) != 0 && !context.quiet) {}

  ExitCode run() {
    if (terminal_) say(kHelp);
    bool interrupted = false;  // at the prompt, with nothing between
    for (LineInput lines; !ended_;) {
      if (terminal_) say("\n> ");
      const auto line = lines.next();
      if (!line && interrupt_requested() && terminal_ && !interrupted) {
        clear_interrupt();
        interrupted = true;
        say("\nCtrl-C again, Ctrl-D or /exit ends.");
        continue;
      }
      if (!line) break;
      interrupted = false;
      take(*line);
    }
    if (terminal_) say("\n");
    return ExitCode::kOk;
  }

 private:
  void say(std::string_view text) const {
    if (!context_.quiet) fmt::print(stderr, "{}", text);
  }

  // One line: a command or a message. What is wrong with it is said, and the conversation goes on.
  void take(const std::string& line) {
    if (is_blank(line)) return;
    try {
      if (line[0] == '/') {
        command(line);
      } else {
        conversation_.messages.emplace_back("user", line.substr(0, line.find_last_not_of('\r') + 1));
        answer();
      }
    } catch (const Error& error) {
      log_error("{}", replace_invalid_utf8(error.what()));
    }
    clear_interrupt();
  }

  void command(const std::string& line) {
    const std::size_t space = line.find_first_of(" \t\r");
    const std::string name = line.substr(0, space);
    std::string argument = space == std::string::npos
                               ? ""
                               : line.substr(std::min(line.find_first_not_of(" \t\r", space), line.size()));
    argument.resize(argument.find_last_not_of(" \t\r") + 1);
    if (name == "/exit" || name == "/quit") {
      ended_ = true;
    } else if (name == "/help") {
      say(kHelp);
    } else if (name == "/reset") {
      conversation_.messages.clear();
      set_system(system_);
      say("a new conversation\n");
    } else if (name == "/system") {
      system_ = argument;
      set_system(system_);
      say(system_.empty() ? "no system message\n" : "the system message is set\n");
    } else if (name == "/save") {
      save(argument);
    } else if (name == "/load") {
      load(argument);
    } else {
      throw ConfigError(fmt::format("unknown command {}; /help lists them", name));
    }
  }

  void set_system(const std::string& text) {
    auto& messages = conversation_.messages;
    if (!messages.empty() && messages.front().role == "system") messages.erase(messages.begin());
    if (!text.empty()) messages.insert(messages.begin(), Message("system", text));
  }

  bool has_messages() const {
    return std::any_of(conversation_.messages.begin(), conversation_.messages.end(),
                       [](const Message& message) { return message.role != "system"; });
  }

  void save(const std::string& file) const {
    if (file.empty()) throw ConfigError("/save needs the name of a file");
    if (!has_messages()) throw DataError("there is no conversation to save yet");
    write_file_atomically(file, to_json(conversation_).dump() + "\n");
    say(fmt::format("saved to {}\n", file));
  }

  void load(const std::string& file) {
    if (file.empty()) throw ConfigError("/load needs the name of a file");
    ConversationReader reader({file}, {.require_answer = false});
    Conversation conversation;
    reader.next(conversation);  // the first of the file
    conversation_ = std::move(conversation);
    system_ = conversation_.messages.front().role == "system" ? conversation_.messages.front().joined_text() : "";
    say(fmt::format("{} messages of {}\n", conversation_.messages.size(), file));
    if (conversation_.messages.back().role == "user") answer();
  }

  // Answers the last message, the user's; takes it back when there is no answer.
  void answer() {
    try {
      ChatModel::Answer answer = model_.answer(conversation_, [this](std::string_view text) {
        if (!context_.json) write(text);
      });
      if (context_.json) {
        report(answer);
      } else {
        write("\n");
      }
      if (answer.reason == FinishReason::kLength) log_info("the answer was cut at {} tokens", answer.tokens);
      if (answer.reason == FinishReason::kCancelled && answer.tokens == 0) {
        conversation_.messages.pop_back();
      } else {
        conversation_.messages.push_back(std::move(answer.message));
      }
    } catch (const Error&) {
      conversation_.messages.pop_back();
      throw;
    }
  }

  static void report(const ChatModel::Answer& answer) {
    nlohmann::ordered_json object = to_json(Conversation{{answer.message}})["messages"][0];
    object.update(answer.details);
    object["finish_reason"] = name_of(answer.reason);
    write(object.dump() + "\n");
  }

  ChatModel& model_;
  const Context& context_;
  bool terminal_, ended_ = false;
  std::string system_;
  Conversation conversation_;
};

class LocalChatModel final : public ChatModel {
 public:
  LocalChatModel(const LoadedModel& loaded, const GenerationOptions& generation)
      : loaded_(loaded), tokenizer_(*loaded.tokenizer), options_(generation) {
    options_.stop_tokens = {tokenizer_.require_special(kAssistantEnd), tokenizer_.require_special(kBos)};
    options_.tools = &tokenizer_;
  }

  Answer answer(const Conversation& conversation, const OnText& on_text) override {
    // Room for an answer of a quarter of the context, or of all that may be generated where that is less.
    const std::int64_t context = loaded_.model->config().sequence_len;
    const std::int64_t room = std::clamp<std::int64_t>(options_.max_tokens, 1, std::max<std::int64_t>(context / 4, 1));
    const ChatPrompt prompt = fit_prompt(tokenizer_, conversation, context - room);
    dropped_.report(prompt.dropped, fmt::format("the context of {} tokens", context));
    AnswerView view(tokenizer_);
    const Generation result = generate(*loaded_.model, {prompt.ids}, options_, [&](std::size_t, TokenId id) {
      on_text(view.push(id));
      return true;
    })[0];
    on_text(view.flush());
    options_.sampling.seed = derive_seed(options_.sampling.seed, "next answer");
    return {.message = Message("assistant", answer_parts(tokenizer_, result.ids)),
            .reason = result.reason,
            .tokens = static_cast<std::int64_t>(result.ids.size()),
            .details = {{"ids", result.ids}, {"forced", result.forced}}};
  }

 private:
  const LoadedModel& loaded_;
  const Tokenizer& tokenizer_;
  GenerationOptions options_;
  DroppedMessages dropped_;
};

}  // namespace

const char* name_of(FinishReason reason) {
  return reason == FinishReason::kStop ? "stop" : reason == FinishReason::kLength ? "length" : "cancelled";
}

void DroppedMessages::report(std::size_t dropped, std::string_view context) {
  if (dropped > reported_) log_warn("{} is full: the oldest {} messages are left out", context, dropped);
  reported_ = dropped;  // less than before: a new conversation
}

std::unique_ptr<ChatModel> local_chat_model(const LoadedModel& loaded, const GenerationOptions& generation) {
  const Tokenizer* tokenizer = loaded.tokenizer.get();
  const auto is_missing = [&](std::string_view name) { return tokenizer == nullptr || !tokenizer->special_id(name); };
  const auto missing = std::find_if(kChatSpecialTokens.begin(), kChatSpecialTokens.end(), is_missing);
  if (missing != kChatSpecialTokens.end()) {
    throw CheckpointError(fmt::format("{}: {}, so it cannot chat; --prompt continues a text", loaded.folder.string(),
                                      tokenizer == nullptr ? "no tokenizer beside the model"
                                                           : fmt::format("its tokenizer has no {}", *missing)));
  }
  log_debug("chat with {}", loaded.folder.string());
  return std::make_unique<LocalChatModel>(loaded, generation);
}

ExitCode chat(ChatModel& model, const Context& context) { return ChatSession(model, context).run(); }

}  // namespace nanochat::cli
