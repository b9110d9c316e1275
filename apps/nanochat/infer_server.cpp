#include "infer_server.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <exception>
#include <mutex>
#include <thread>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "client/server_client.h"
#include "core/format.h"
#include "core/interrupt.h"
#include "core/log.h"
#include "core/random.h"
#include "data/conversations/conversations.h"

namespace nanochat::cli {
namespace {

using nlohmann::ordered_json;

void write(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    throw IoError("cannot write to standard output");
  }
}

ServerOptions client_options(const ServerArguments& server) {
  return {.url = server.url, .api_key = server.api_key, .stopped = [] { return interrupt_requested(); }};
}

// The fields that chats and completions share. Fields that OpenAI's API does not have are sent only if they say something, so that
// servers of others take the request too.
ordered_json request_body(const ServerArguments& server, const GenerationOptions& options) {
  const SamplingOptions& sampling = options.sampling;
  ordered_json body = {{"max_tokens", options.max_tokens},
                       {"temperature", sampling.temperature},
                       {"top_p", sampling.top_p},
                       {"seed", sampling.seed & 0x7fffffffffffffffULL}};
  if (!server.model.empty()) body["model"] = server.model;
  if (sampling.top_k > 0) body["top_k"] = sampling.top_k;
  if (sampling.min_p > 0) body["min_p"] = sampling.min_p;
  if (sampling.repetition_penalty != 1.0) body["repetition_penalty"] = sampling.repetition_penalty;
  if (options.ignore_eos) body["ignore_eos"] = true;
  return body;
}

FinishReason reason_of(const ServerAnswer& answer) {
  return answer.finish_reason == "cancelled" ? FinishReason::kCancelled
         : answer.finish_reason == "length"  ? FinishReason::kLength
                                             : FinishReason::kStop;
}

// Tokens a second after the first; 0 when there is only one.
double decode_rate(const ServerAnswer& answer) {
  const double seconds = answer.total_seconds - answer.first_seconds;
  return answer.completion_tokens < 2 || seconds <= 0.0 ? 0.0 : static_cast<double>(answer.completion_tokens - 1) / seconds;
}

struct Result {
  ServerAnswer answer;
  std::string shown;  // the text with calculations
};

Result ask(ServerClient& client, ordered_json body, const Prompt& prompt, const ServerClient::OnText& on_text) {
  Result result;
  const auto take = [&](std::string_view text) {
    result.shown += text;
    if (on_text) on_text(text);
  };
  if (prompt.conversation) {
    body["messages"] = api_messages(*prompt.conversation);
    result.answer = client.chat(std::move(body), take);
  } else {
    body["prompt"] = prompt.text ? ordered_json(replace_invalid_utf8(*prompt.text)) : ordered_json(prompt.ids);
    result.answer = client.complete(std::move(body), take);
  }
  return result;
}

ordered_json describe(const Prompt& prompt, const Result& result) {
  ordered_json object;
  if (prompt.text) object["prompt"] = replace_invalid_utf8(*prompt.text);
  if (prompt.conversation) object["messages"] = to_json(*prompt.conversation)["messages"];
  if (!prompt.ids.empty()) object["prompt_ids"] = prompt.ids;
  object["text"] = result.shown;
  object["finish_reason"] = name_of(reason_of(result.answer));
  object["prompt_tokens"] = result.answer.prompt_tokens;
  object["completion_tokens"] = result.answer.completion_tokens;
  object["ttft_ms"] = 1e3 * result.answer.first_seconds;
  object["tokens_per_second"] = decode_rate(result.answer);
  return object;
}

// Answers all prompts, some at a time, and gives the results in their order. The first error ends it.
std::vector<Result> ask_all(const ServerArguments& server, const ordered_json& body, const std::vector<Prompt>& prompts,
                            std::int64_t at_a_time) {
  std::vector<Result> results(prompts.size());
  std::atomic<std::size_t> next{0};
  std::mutex mutex;
  std::exception_ptr failed;
  const auto work = [&] {
    try {
      ServerClient client(client_options(server));
      for (std::size_t i; (i = next++) < prompts.size();) results[i] = ask(client, body, prompts[i], {});
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!failed) failed = std::current_exception();
      next = prompts.size();
    }
  };
  std::vector<std::thread> threads;
  const auto count = std::min(prompts.size(), static_cast<std::size_t>(std::max<std::int64_t>(at_a_time, 1)));
  for (std::size_t i = 0; i < count; ++i) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  if (failed) std::rethrow_exception(failed);
  return results;
}

class ServerChatModel final : public ChatModel {
 public:
  ServerChatModel(const ServerArguments& server, const GenerationOptions& options)
      : server_(server), options_(options), client_(client_options(server)) {}

  Answer answer(const Conversation& conversation, const OnText& on_text) override {
    // The server refuses a conversation that is longer than its context. The oldest exchanges are then left out.
    Conversation shown = conversation;
    while (true) {
      try {
        ordered_json body = request_body(server_, options_);
        body["messages"] = api_messages(shown);
        const ServerAnswer result = client_.chat(std::move(body), on_text);
        dropped_.report(conversation.messages.size() - shown.messages.size(), "the context of the server");
        options_.sampling.seed = derive_seed(options_.sampling.seed, "next answer");
        return {.message = Message("assistant", with_calculations(result.text, result.calculations)),
                .reason = reason_of(result),
                .tokens = result.completion_tokens > 0 ? result.completion_tokens : std::int64_t{!result.text.empty()}};
      } catch (const ServerError& error) {
        const auto oldest = shown.messages.begin() + (shown.messages.front().role == "system" ? 1 : 0);
        if (error.api_code() != "context_length_exceeded" || shown.messages.end() - oldest < 3) throw;
        shown.messages.erase(oldest, oldest + 2);
      }
    }
  }

 private:
  const ServerArguments server_;
  GenerationOptions options_;
  ServerClient client_;
  DroppedMessages dropped_;
};

}  // namespace

ExitCode answer_by_server(const ServerArguments& server, const GenerationOptions& options, bool echo, const Context& context,
                          const std::vector<Prompt>& prompts) {
  const ordered_json body = request_body(server, options);
  const auto shown = [&](const Prompt& prompt) {
    return !echo || prompt.conversation ? std::string()
           : prompt.text                ? replace_invalid_utf8(*prompt.text)
                                        : fmt::format("{} ", fmt::join(prompt.ids, " "));
  };
  std::vector<Result> results;
  if (prompts.size() == 1 && !context.json) {
    ServerClient client(client_options(server));
    write(shown(prompts[0]));
    results.push_back(ask(client, body, prompts[0], write));
    write("\n");
    const ServerAnswer& answer = results[0].answer;
    log_info("{} tokens, the first after {:.0f} ms, then {:.1f} tokens/s", answer.completion_tokens, 1e3 * answer.first_seconds,
             decode_rate(answer));
  } else {
    results = ask_all(server, body, prompts, options.max_running);
    for (std::size_t i = 0; i < results.size(); ++i) {
      write(context.json ? describe(prompts[i], results[i]).dump() + "\n" : shown(prompts[i]) + results[i].shown + "\n");
    }
  }
  const bool cancelled = std::any_of(results.begin(), results.end(),
                                     [](const Result& result) { return reason_of(result.answer) == FinishReason::kCancelled; });
  return cancelled ? ExitCode::kPartial : ExitCode::kOk;
}

std::unique_ptr<ChatModel> server_chat_model(const ServerArguments& server, const GenerationOptions& options) {
  return std::make_unique<ServerChatModel>(server, options);
}

}  // namespace nanochat::cli
