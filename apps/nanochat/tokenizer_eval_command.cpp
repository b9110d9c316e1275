// nanochat tokenizer eval: how well, and how fast, tokenizers compress given texts.
#include <algorithm>
#include <limits>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "command_line.h"
#include "commands.h"
#include "core/elapsed.h"
#include "core/errors.h"
#include "core/format.h"
#include "data/rows/byte_source.h"
#include "data/text/documents.h"
#include "reader_options.h"
#include "tokenizer/load.h"
#include "tokenizer/tokenizer.h"

namespace nanochat::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

struct EvalArguments {
  std::vector<std::string> tokenizers, data_dir;
  ReaderOptions reader;
  int threads = 0;
  std::int64_t repeats = 3;
};

struct Text {
  std::string name;
  std::vector<std::string> documents;
  std::size_t bytes = 0;
};

std::vector<Text> read_texts(const EvalArguments& arguments) {
  std::vector<Text> texts;
  for (const fs::path& file : expand_paths(arguments.data_dir, arguments.reader)) {
    Text& text = texts.emplace_back();
    text.name = fs::path(name_of(file)).filename().string();
    const auto reader = open_documents({file}, arguments.reader);
    for (std::string document; reader->next(document);) {
      text.bytes += document.size();
      text.documents.push_back(std::move(document));
    }
  }
  return texts;
}

struct Score {
  std::vector<std::size_t> tokens;  // of each text
  double seconds = std::numeric_limits<double>::infinity();  // to encode them all, the fastest time
};

Score score(const Tokenizer& tokenizer, const std::vector<Text>& texts, const EvalArguments& arguments) {
  Score result;
  for (std::int64_t repeat = 0; repeat < arguments.repeats; ++repeat) {
    result.tokens.clear();
    const auto start = SteadyClock::now();
    for (const Text& text : texts) {
      std::size_t tokens = 0;
      for (const auto& ids : tokenizer.encode_batch(text.documents, arguments.threads)) tokens += ids.size();
      result.tokens.push_back(tokens);
    }
    result.seconds = std::min(result.seconds, seconds_since(start));
  }
  return result;
}

double ratio(std::size_t bytes, std::size_t tokens) {
  return tokens > 0 ? static_cast<double>(bytes) / static_cast<double>(tokens) : 0.0;
}

ExitCode eval_tokenizers(const EvalArguments& arguments, Context& context) {
  std::vector<std::shared_ptr<const Tokenizer>> tokenizers;
  for (const std::string& path : arguments.tokenizers) tokenizers.push_back(load_tokenizer(path));
  const std::vector<Text> texts = read_texts(arguments);
  std::size_t all_bytes = 0;
  for (const Text& text : texts) all_bytes += text.bytes;

  std::vector<Score> scores;
  for (const auto& tokenizer : tokenizers) scores.push_back(score(*tokenizer, texts, arguments));
  ordered_json report = {{"bytes", all_bytes}, {"threads", arguments.threads}, {"tokenizers", ordered_json::array()}};
  for (std::size_t i = 0; i < tokenizers.size(); ++i) {
    std::size_t tokens = 0;
    ordered_json rows = ordered_json::array();
    for (std::size_t t = 0; t < texts.size(); ++t) {
      tokens += scores[i].tokens[t];
      rows.push_back({{"text", texts[t].name},
                      {"bytes", texts[t].bytes},
                      {"tokens", scores[i].tokens[t]},
                      {"bytes_per_token", ratio(texts[t].bytes, scores[i].tokens[t])}});
    }
    report["tokenizers"].push_back({{"tokenizer", arguments.tokenizers[i]},
                                    {"type", tokenizers[i]->type()},
                                    {"vocab_size", tokenizers[i]->vocab_size()},
                                    {"bytes_per_token", ratio(all_bytes, tokens)},
                                    {"bytes_per_second", static_cast<double>(all_bytes) / scores[i].seconds},
                                    {"texts", std::move(rows)}});
  }
  if (context.json) {
    fmt::print("{}\n", report.dump());
    return ExitCode::kOk;
  }
  constexpr std::size_t kNameWidth = 28, kColumn = 14;
  const auto cell = [](std::string text, std::size_t width) {
    return text.size() > width ? text.substr(text.size() - width) : text;
  };
  fmt::print("bytes per token\n{:<{}} {:>10}", "", kNameWidth, "bytes");
  for (const std::string& path : arguments.tokenizers) {
    const fs::path trimmed = fs::path(path).has_filename() ? fs::path(path) : fs::path(path).parent_path();
    fmt::print(" {:>{}}", cell(trimmed.stem().string(), kColumn), kColumn);
  }
  fmt::print("\n");
  for (std::size_t t = 0; t < texts.size(); ++t) {
    fmt::print("{:<{}} {:>10}", cell(texts[t].name, kNameWidth), kNameWidth,
               with_commas(static_cast<std::int64_t>(texts[t].bytes)));
    for (const Score& each : scores) fmt::print(" {:>{}.3f}", ratio(texts[t].bytes, each.tokens[t]), kColumn);
    fmt::print("\n");
  }
  const auto last_row = [&](const char* name, const auto& value) {
    fmt::print("{:<{}} {:>10}", name, kNameWidth, "");
    for (const ordered_json& row : report["tokenizers"]) fmt::print(" {:>{}}", value(row), kColumn);
    fmt::print("\n");
  };
  last_row("all", [](const ordered_json& row) { return fmt::format("{:.3f}", row["bytes_per_token"].get<double>()); });
  last_row("vocabulary", [](const ordered_json& row) { return with_commas(row["vocab_size"].get<std::int64_t>()); });
  last_row("MB/s", [](const ordered_json& row) { return fmt::format("{:.1f}", row["bytes_per_second"].get<double>() / 1e6); });
  return ExitCode::kOk;
}

}  // namespace

void add_tokenizer_eval(CommandLine& command_line) {
  auto arguments = std::make_shared<EvalArguments>();
  Subcommand& command = command_line.add(
      "tokenizer eval", "Compare tokenizers by bytes per token and encoding speed on given texts.",
      "nanochat tokenizer eval --tokenizer tokenizer/ gpt2.tiktoken --data-dir english.txt code.txt");
  command.option("tokenizer", &arguments->tokenizers, "Tokenizers to compare: folders or files, as for the other commands.");
  command.option("data_dir", &arguments->data_dir,
                 "Text to encode: files, folders or globs of .txt, .jsonl (each also .gz or .zst) and .parquet. "
                 "Each file gets its own row in the table.");
  add_text_column(command, arguments->reader.text_column);
  command
      .option("min_document_bytes", &arguments->reader.min_document_bytes,
              "Split .txt files at blank lines into documents of at least this many bytes.")
      .at_least(1);
  command.option("threads", &arguments->threads, "Number of threads that encode; 0 uses all cores.").at_least(0);
  command.option("repeats", &arguments->repeats, "Encode each text this many times and report the fastest.").at_least(1);
  command.required("tokenizer").required("data_dir");
  command.run([arguments](Context& context) { return eval_tokenizers(*arguments, context); });
}

}  // namespace nanochat::cli
