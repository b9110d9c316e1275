// nanochat infer: continues prompts with a trained model.
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <functional>
#include <optional>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "checkpoint/checkpoint.h"
#include "command_line.h"
#include "commands.h"
#include "core/format.h"
#include "core/interrupt.h"
#include "core/log.h"
#include "data/conversations/conversations.h"
#include "infer_chat.h"
#include "infer_server.h"
#include "inference/chat.h"
#include "inference/check_prompt.h"
#include "inference/generator.h"
#include "kv_cache_option.h"
#include "line_input.h"
#include "prompts_file.h"
#include "runtime/runtime.h"
#include "speculative_option.h"
#include "tokenizer/tokenizer.h"

namespace nanochat::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

struct InferArguments {
  fs::path model;
  ServerArguments server;
  std::string prompt;
  std::vector<std::string> prompt_ids;
  fs::path prompts_file;
  bool interactive = false;
  bool chat = false;
  bool echo = true;
  GenerationOptions generation;
  SpeculativeOption speculative;
  KvCacheOption kv_cache;
  RuntimeOptions runtime;
};

// ---------------------------------------------------------------------------------------------------------- prompts

std::vector<TokenId> parse_prompt_ids(const std::vector<std::string>& words) {
  std::vector<TokenId> ids;
  for (const std::string& word : words) {
    TokenId id = 0;
    const auto parsed = std::from_chars(word.data(), word.data() + word.size(), id);
    if (parsed.ec != std::errc() || parsed.ptr != word.data() + word.size() || id < 0) {
      throw ConfigError(fmt::format("--prompt-ids: \"{}\" is not a token id; expected numbers such as 1,2,3", word));
    }
    ids.push_back(id);
  }
  return ids;
}

// The prompts that options and files give, before any model is read; empty for --interactive and --chat.
std::vector<Prompt> gather_prompts(const InferArguments& arguments, bool prompt_given) {
  const int ways = int{prompt_given} + int{!arguments.prompt_ids.empty()} + int{!arguments.prompts_file.empty()} +
                   int{arguments.interactive} + int{arguments.chat};
  if (ways != 1) {
    throw ConfigError(fmt::format("{} of --prompt, --prompt-ids, --prompts-file, --interactive and --chat given, expected one",
                                  ways == 0 ? "none" : "several"));
  }
  if (arguments.interactive || arguments.chat) return {};
  if (!arguments.prompts_file.empty()) return read_prompts_file(arguments.prompts_file);
  if (!prompt_given) return {{"--prompt-ids", {}, parse_prompt_ids(arguments.prompt_ids), {}}};
  if (is_blank(arguments.prompt)) throw ConfigError("--prompt: is blank, expected a text to continue");
  return {{"--prompt", arguments.prompt, {}, {}}};
}

// ------------------------------------------------------------------------------------------------------- generation

class Session {
 public:
  Session(const InferArguments& arguments, const Context& context, const Runtime& runtime)
      : arguments_(arguments), context_(context), loaded_(load_model(arguments.model, runtime.dtype, runtime.device)),
        options_(arguments.generation) {
    if (loaded_.tokenizer != nullptr) options_.stop_tokens = end_tokens(*loaded_.tokenizer);
  }

  // Fills in the ids of a text prompt, <|bos|> first, and checks that the model can take them.
  void encode(Prompt& prompt) const {
    const GptConfig& config = loaded_.model->config();
    if (prompt.text) {
      if (loaded_.tokenizer == nullptr) {
        throw CheckpointError(fmt::format("{}: no tokenizer beside the model, so only --prompt-ids can be continued",
                                          loaded_.folder.string()));
      }
      prompt.ids = {loaded_.tokenizer->bos_id()};
      loaded_.tokenizer->encode(*prompt.text, prompt.ids);
    } else if (prompt.conversation) {
      encode_conversation(prompt);
    }
    check_prompt(prompt.ids, config, prompt.where + ": the prompt");
  }

  // Continues the prompts and writes the results. One prompt alone is streamed. Conversations are answered with the
  // calculator, as --chat does.
  ExitCode answer(std::vector<Prompt> prompts) {
    std::vector<std::vector<TokenId>> ids;
    const bool chat = std::any_of(prompts.begin(), prompts.end(), [](const Prompt& prompt) { return prompt.conversation; });
    if (chat) options_.tools = loaded_.tokenizer.get();
    for (Prompt& prompt : prompts) {
      encode(prompt);
      ids.push_back(prompt.ids);
    }
    const bool streamed = prompts.size() == 1 && !context_.json;
    const std::vector<Generation> results = streamed ? std::vector<Generation>{stream(prompts[0])}
                                                     : generate(*loaded_.model, ids, options_);
    bool cancelled = false;
    for (std::size_t i = 0; i < results.size(); ++i) {
      if (context_.json) {
        write(describe(prompts[i], results[i]).dump() + "\n");
      } else if (!streamed) {
        write(shown(prompts[i]) + answer_of(prompts[i], results[i].ids) + "\n");
      }
      cancelled = cancelled || results[i].reason == FinishReason::kCancelled;
    }
    return cancelled ? ExitCode::kPartial : ExitCode::kOk;
  }

 private:
  static void write(std::string_view text) {
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
      throw IoError("cannot write to standard output");
    }
  }

  void encode_conversation(Prompt& prompt) const {
    constexpr std::int64_t kNoLimit = std::int64_t{1} << 40;
    try {
      if (loaded_.tokenizer == nullptr) throw TokenizerError("there is no tokenizer beside the model");
      prompt.ids = render_prompt(*loaded_.tokenizer, *prompt.conversation, kNoLimit);
    } catch (const TokenizerError& error) {
      throw CheckpointError(fmt::format("{}: cannot chat, which {} asks for: {}", loaded_.folder.string(), prompt.where,
                                        error.what()));
    }
  }

  Generation stream(const Prompt& prompt) {
    write(shown(prompt));
    std::optional<StreamDecoder> decoder;
    std::optional<AnswerView> view;
    if (loaded_.tokenizer != nullptr && prompt.conversation) view.emplace(*loaded_.tokenizer);
    if (loaded_.tokenizer != nullptr && !prompt.conversation) decoder.emplace(*loaded_.tokenizer);
    bool first = true;
    Generation result = generate(*loaded_.model, {prompt.ids}, options_, [&](std::size_t, TokenId id) {
      write(view ? view->push(id) : decoder ? decoder->push(id) : fmt::format("{}{}", first ? "" : " ", id));
      first = false;
      return true;
    })[0];
    write((view ? view->flush() : decoder ? decoder->flush() : "") + "\n");
    log_info("{} tokens, the first after {:.0f} ms, then {:.1f} tokens/s", result.ids.size(), 1e3 * result.prefill_seconds,
             decode_rate(result));
    return result;
  }

  // The prompt as it stands before its continuation; nothing of a conversation.
  std::string shown(const Prompt& prompt) const {
    if (!arguments_.echo || prompt.conversation) return "";
    if (prompt.text) return replace_invalid_utf8(*prompt.text);
    const bool bos = loaded_.tokenizer != nullptr && prompt.ids[0] == loaded_.tokenizer->bos_id();
    return text_of(std::span(prompt.ids).subspan(bos ? 1 : 0)) + (loaded_.tokenizer == nullptr ? " " : "");
  }

  // Without a tokenizer, the ids themselves.
  std::string text_of(std::span<const TokenId> ids) const {
    if (loaded_.tokenizer == nullptr) return fmt::format("{}", fmt::join(ids, " "));
    return replace_invalid_utf8(loaded_.tokenizer->decode(ids));
  }

  // What was generated, in a conversation with the calculator's calls as "<<6*7=42>>".
  std::string answer_of(const Prompt& prompt, std::span<const TokenId> ids) const {
    if (!prompt.conversation) return text_of(ids);
    AnswerView view(*loaded_.tokenizer);
    std::string text;
    for (const TokenId id : ids) text += view.push(id);
    return text + view.flush();
  }

  // Tokens a second after the first; 0 when there is only one.
  static double decode_rate(const Generation& result) {
    if (result.ids.size() < 2 || result.decode_seconds <= 0.0) return 0.0;
    return static_cast<double>(result.ids.size() - 1) / result.decode_seconds;
  }

  ordered_json describe(const Prompt& prompt, const Generation& result) const {
    ordered_json object;
    if (prompt.text) object["prompt"] = replace_invalid_utf8(*prompt.text);
    if (prompt.conversation) object["messages"] = to_json(*prompt.conversation)["messages"];
    object["prompt_ids"] = prompt.ids;
    object["ids"] = result.ids;
    if (loaded_.tokenizer != nullptr) object["text"] = answer_of(prompt, result.ids);
    object["logprobs"] = result.logprobs;
    object["finish_reason"] = result.reason == FinishReason::kStop     ? "stop"
                              : result.reason == FinishReason::kLength ? "length"
                                                                       : "cancelled";
    object["ttft_ms"] = 1e3 * result.prefill_seconds;
    object["tokens_per_second"] = decode_rate(result);
    return object;
  }

  const InferArguments& arguments_;
  const Context& context_;
  LoadedModel loaded_;
  GenerationOptions options_;
};

// ------------------------------------------------------------------------------------------------------ interactive

// `answer` takes one prompt.
ExitCode converse(const std::function<void(Prompt)>& answer, const Context& context) {
  const bool terminal = ::isatty(STDIN_FILENO) != 0 && !context.quiet;
  if (terminal) fmt::print(stderr, "Each line is continued by itself. Ctrl-C stops an answer, /quit ends.\n");
  LineInput lines;
  while (true) {
    if (terminal) fmt::print(stderr, "> ");
    const std::optional<std::string> line = lines.next();
    if (!line || *line == "/quit") break;
    if (is_blank(*line)) continue;
    try {
      answer({"standard input", *line, {}, {}});
    } catch (const DataError& error) {  // of this line alone: a prompt longer than the context
      log_error("{}", error.what());
    }
    clear_interrupt();
  }
  if (terminal) fmt::print(stderr, "\n");
  return ExitCode::kOk;
}

ExitCode infer_by_server(const InferArguments& arguments, const std::vector<Prompt>& prompts, const Context& context) {
  ServerArguments server = arguments.server;
  server.model = arguments.model.string();
  if (arguments.chat) return chat(*server_chat_model(server, arguments.generation), context);
  const auto answer = [&](const std::vector<Prompt>& some) {
    return answer_by_server(server, arguments.generation, arguments.echo, context, some);
  };
  if (!arguments.interactive) return answer(prompts);
  return converse([&](Prompt prompt) { answer({std::move(prompt)}); }, context);
}

ExitCode infer(InferArguments& arguments, bool prompt_given, Context& context) {
  arguments.generation.speculative = arguments.speculative.get();
  arguments.generation.validate();
  std::vector<Prompt> prompts = gather_prompts(arguments, prompt_given);
  if (!arguments.server.url.empty()) return infer_by_server(arguments, prompts, context);
  const Runtime runtime = select_runtime(arguments.runtime, Workload::kDecoding);
  log_debug("{}", runtime.description);
  arguments.generation.fp8_cache = arguments.kv_cache.fp8(runtime);
  if (arguments.chat) {
    const LoadedModel loaded = load_model(arguments.model, runtime.dtype, runtime.device);
    return chat(*local_chat_model(loaded, arguments.generation), context);
  }
  Session session(arguments, context, runtime);
  if (!arguments.interactive) return session.answer(std::move(prompts));
  return converse([&](Prompt prompt) { session.answer({std::move(prompt)}); }, context);
}

}  // namespace

void add_infer(CommandLine& command_line) {
  auto arguments = std::make_shared<InferArguments>();
  GenerationOptions& generation = arguments->generation;
  SamplingOptions& sampling = generation.sampling;
  Subcommand& command = command_line.add("infer", "Complete prompts or chat with a trained model.",
                                         "nanochat infer runs/first --prompt \"The capital of France is\" --temperature 0");
  command.option(
      "model", &arguments->model,
      "A run, a checkpoint, or a .safetensors file with config.json in the same folder. With --server: the name of a model "
      "of that server; default: its own.");
  command.option("server", &arguments->server.url,
                 "URL of a server that answers, such as http://127.0.0.1:8000; options of the machine have no effect then.");
  Option& api_key = command.option("api_key", &arguments->server.api_key,
                                   "API key for --server. Use the variable NANOCHAT_API_KEY so that the key does not appear in "
                                   "the process list.");
  api_key.not_in_resolved();
  const Option& prompt = command.option("prompt", &arguments->prompt,
                                        "Text to complete. The completion is printed as it is generated.");
  command.option("prompt_ids", &arguments->prompt_ids, "Token ids to complete; no tokenizer is needed.").comma_separated();
  command.option("prompts_file", &arguments->prompts_file,
                 "File of prompts to complete in batches: one prompt per line, or rows of {\"prompt\":...}, "
                 "{\"prompt_ids\":[...]} or {\"messages\":[...]} (.jsonl, .json, .parquet); - reads standard input.");
  command.option("interactive", &arguments->interactive,
                 "Complete each line that you type. /quit exits; Ctrl-C stops a completion.");
  command.option("chat", &arguments->chat, "Chat with a chat model, which can use the calculator. /help lists the commands.");
  command.option("echo", &arguments->echo, "Print the prompt before its completion. Ignored with --json.");
  command.option("max_tokens", &generation.max_tokens, "Maximum number of tokens to generate; the context may allow fewer.")
      .at_least(1);
  command.option("temperature", &sampling.temperature, "Sampling temperature; 0 always takes the most likely token.")
      .at_least(0);
  command.option("top_k", &sampling.top_k, "Sample from the k most likely tokens; 0 samples from all.").at_least(0);
  command
      .option("top_p", &sampling.top_p,
              "Sample from the smallest set of most likely tokens whose probabilities sum to p (nucleus sampling).")
      .at_least(0)
      .at_most(1);
  command.option("min_p", &sampling.min_p, "Exclude tokens whose probability is below this fraction of the highest one.")
      .at_least(0)
      .at_most(1);
  command
      .option("repetition_penalty", &sampling.repetition_penalty,
              "Values above 1 make tokens that already occurred less likely.")
      .at_least(0.01)
      .at_most(100);
  command.option("seed", &sampling.seed, "Random seed for sampling.");
  command.option("ignore_eos", &generation.ignore_eos, "Continue after tokens that end a text, until --max-tokens.");
  command.option("device_batch_size", &generation.max_running, "Number of prompts of --prompts-file to complete at a time.")
      .at_least(1);
  command.option(
      "deterministic", &generation.batch_invariant,
      "On a GPU in bfloat16, make results batch-invariant: independent of the other prompts in the batch. Prompts are slower.");
  arguments->speculative.declare(command);
  arguments->kv_cache.declare(command);
  declare_runtime_options(command.options(), arguments->runtime);
  command.positional("model").required("model").unless("server");
  command.run([arguments, &prompt](Context& context) { return infer(*arguments, prompt.source() != "default", context); });
}

}  // namespace nanochat::cli
