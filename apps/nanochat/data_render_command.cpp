// nanochat data render: conversations as token ids and supervision mask, to look at or to read by a program.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "command_line.h"
#include "commands.h"
#include "core/format.h"
#include "core/log.h"
#include "core/terminal.h"
#include "data/conversations/conversations.h"
#include "data/rows/rows.h"
#include "tokenizer/load.h"

namespace nanochat::cli {
namespace {

struct RenderArguments {
  std::vector<std::string> data_dir;
  std::filesystem::path tokenizer;
  std::int64_t max_tokens = kDefaultConversationTokens;
  std::int64_t limit = 0;
  bool ids = false;
  bool skip_bad = false;
  std::string color = "auto";
};

constexpr const char* kSupervised = "\033[32m";    // green
constexpr const char* kUnsupervised = "\033[31m";  // red
constexpr const char* kFaint = "\033[2m";
constexpr const char* kReset = "\033[0m";

// The text of a token, so that it stands in one line and no control sequence in a file reaches the terminal.
std::string shown(std::string_view bytes) {
  std::string text;
  for (const char c : replace_invalid_utf8(bytes)) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n') {
      text += "\\n";
    } else if (byte < 0x20 || byte == 0x7f) {
      text += fmt::format("\\x{:02x}", byte);
    } else {
      text += c;
    }
  }
  return text;
}

// Tokens with a bar between them: in colours, or with supervised ones in braces.
std::string view(const Tokenizer& tokenizer, const RenderedConversation& rendered, const RenderArguments& arguments,
                 bool colored) {
  std::string line;
  for (std::size_t i = 0; i < rendered.ids.size(); ++i) {
    const bool supervised = rendered.mask[i] != 0;
    const std::string text = shown(tokenizer.token_bytes(rendered.ids[i]));
    const std::string id = arguments.ids ? fmt::format("({})", rendered.ids[i]) : "";
    if (colored) {
      line += fmt::format("{}{}{}{}{}|{}", supervised ? kSupervised : kUnsupervised, text, kReset, kFaint, id, kReset);
    } else {
      const bool begins = supervised && (i == 0 || rendered.mask[i - 1] == 0);
      const bool ends = supervised && (i + 1 == rendered.ids.size() || rendered.mask[i + 1] == 0);
      line += fmt::format("{}{}{}{}|", begins ? "{" : "", text, id, ends ? "}" : "");
    }
  }
  return line;
}

void write(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) throw IoError("cannot write to standard output");
}

ExitCode render(const RenderArguments& arguments, const Context& context) {
  const auto tokenizer = load_tokenizer(arguments.tokenizer);
  const bool colored = arguments.color == "always" || (arguments.color == "auto" && wants_color(STDOUT_FILENO));
  ConversationReader reader(expand_row_paths(arguments.data_dir), {.skip_bad = arguments.skip_bad, .require_answer = false});
  std::int64_t count = 0, cut = 0, useless = 0;
  for (Conversation conversation; (arguments.limit == 0 || count < arguments.limit) && reader.next(conversation); ++count) {
    const RenderedConversation rendered = render_conversation(*tokenizer, conversation, arguments.max_tokens);
    const auto supervised = std::count(rendered.mask.begin(), rendered.mask.end(), 1);
    cut += rendered.cut() ? 1 : 0;
    useless += supervised == 0 ? 1 : 0;
    if (context.json) {
      write(nlohmann::ordered_json{{"ids", rendered.ids}, {"mask", rendered.mask}}.dump() + "\n");
      continue;
    }
    const std::string whole = rendered.cut() ? fmt::format(" of {}", rendered.whole_length) : "";
    write(fmt::format("{}{}: {}{} tokens, {} supervised{}\n{}\n", colored ? kFaint : "", reader.where(), rendered.ids.size(),
                      whole, supervised, colored ? kReset : "", view(*tokenizer, rendered, arguments, colored)));
  }
  log_report(reader.report());
  if (cut > 0)
    log_warn("{} of {} conversations have more than {} tokens; the rest of each is cut off", cut, count, arguments.max_tokens);
  if (useless > 0) log_warn("{} of {} conversations have no supervised token", useless, count);
  if (std::fflush(stdout) != 0) throw IoError("cannot write to standard output");
  return reader.report().bad > 0 ? ExitCode::kPartial : ExitCode::kOk;
}

}  // namespace

void add_data_render(CommandLine& command_line) {
  auto arguments = std::make_shared<RenderArguments>();
  Subcommand& command = command_line.add("data render",
                                         "Show conversations as tokens, with the tokens that the loss includes in green. With "
                                         "--json, print one {\"ids\",\"mask\"} object per line.",
                                         "nanochat data render chat.jsonl --tokenizer tokenizer/ --limit 3");
  command.option("data_dir", &arguments->data_dir,
                 "Conversations: files, folders or globs of .jsonl and .json (each also .gz or .zst) and .parquet; "
                 "- reads standard input.");
  command.option("tokenizer", &arguments->tokenizer,
                 "Tokenizer that has the special tokens of conversations: a folder, a file or a checkpoint.");
  command.option("max_tokens", &arguments->max_tokens, "Truncate conversations to this many tokens.").at_least(1);
  command.option("limit", &arguments->limit, "Stop after this many conversations; 0 shows all.").at_least(0);
  command.option("ids", &arguments->ids, "Show the id of each token.");
  command.option("skip_bad", &arguments->skip_bad,
                 "Skip rows that are not valid conversations, and log their number. The exit code is then 5. By default the "
                 "first such row is an error.");
  command.option("color", &arguments->color, "Use colours. auto does so on a terminal, unless NO_COLOR is set or TERM is dumb.")
      .one_of({"auto", "always", "never"});
  command.positional("data_dir").required("data_dir").required("tokenizer");
  command.run([arguments](Context& context) { return render(*arguments, context); });
}

}  // namespace nanochat::cli
