// nanochat data prepare | toy; download_command.cpp has data download
#include <charconv>
#include <cstdio>
#include <memory>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "command_line.h"
#include "commands.h"
#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/format.h"
#include "core/interrupt.h"
#include "data/shards/prepare.h"
#include "data/toy/toy.h"
#include "reader_options.h"
#include "tokenizer/load.h"

namespace nanochat::cli {
namespace {

namespace fs = std::filesystem;

struct PrepareArguments {
  std::vector<std::string> data_dir;
  std::vector<std::string> weights;
  fs::path tokenizer, output_dir;
  std::string bos_token;
  SkipBad skip_bad;
  PrepareOptions options;
};

std::string commas(std::uint64_t value) { return with_commas(static_cast<std::int64_t>(value)); }

double parse_weight(const std::string& text) {
  double weight = 0.0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), weight);
  if (parsed.ec == std::errc() && parsed.ptr == text.data() + text.size()) return weight;
  throw ConfigError(fmt::format("--weights: found \"{}\", expected a number", text));
}

ExitCode prepare(PrepareArguments& arguments, Context& context) {
  install_interrupt_handlers();
  for (const std::string& weight : arguments.weights) {
    arguments.options.mixture.weights.push_back(parse_weight(weight));
  }
  arguments.skip_bad.apply(arguments.options.reader);
  const auto tokenizer = load_tokenizer(arguments.tokenizer, {.bos_token = arguments.bos_token});
  const PrepareResult result = prepare_shards(arguments.data_dir, *tokenizer, arguments.output_dir, arguments.options,
                                              *context.progress);
  const ReaderOptions& reader = arguments.options.reader;
  if (reader.bad_rows) reader.bad_rows->log();
  if (context.json) {
    nlohmann::json shards = nlohmann::json::array();
    for (const fs::path& shard : result.shards) shards.push_back(shard.string());
    const nlohmann::json report = {{"output_dir", arguments.output_dir.string()},
                                   {"train_documents", result.train_documents},
                                   {"validation_documents", result.validation_documents},
                                   {"train_tokens", result.train_tokens},
                                   {"validation_tokens", result.validation_tokens},
                                   {"text_bytes", result.text_bytes},
                                   {"shards", std::move(shards)},
                                   {"skipped_rows", skipped_to_json(reader)},
                                   {"filters", arguments.options.filters.any() ? to_json(result.filtered) : nullptr},
                                   {"interrupted", result.interrupted}};
    fmt::print("{}\n", report.dump());
  } else if (!context.quiet && !result.interrupted) {
    const std::uint64_t tokens = result.train_tokens + result.validation_tokens;
    fmt::print("{}: {} training tokens in {} documents, {} validation tokens in {}, {} shards, {:.2f} bytes per token\n",
               arguments.output_dir.string(), commas(result.train_tokens), commas(result.train_documents),
               commas(result.validation_tokens), commas(result.validation_documents), result.shards.size(),
               tokens > 0 ? static_cast<double>(result.text_bytes) / static_cast<double>(tokens) : 0.0);
    for (const FilterCount& count : result.filtered.dropped) {
      fmt::print("  {}: {} of {} documents dropped, {}\n", count.name, commas(count.documents),
                 commas(result.filtered.documents), human_bytes(static_cast<double>(count.text_bytes)));
    }
  }
  if (!result.interrupted) return ExitCode::kOk;
  if (!context.quiet) {
    fmt::print(stderr, "interrupted after {} whole shards; --resume continues\n", result.shards.size());
  }
  return ExitCode::kPartial;
}

struct ToyArguments {
  fs::path output_dir;
  ToyOptions options;
  std::int64_t prompts = 200;
};

nlohmann::json to_json(const ToyPrompt& prompt) {
  return {{"prompt", prompt.prompt}, {"answers", prompt.answers}, {"topic", prompt.topic}};
}

void write_prompts(const fs::path& path, const std::vector<ToyPrompt>& prompts) {
  std::string lines;
  for (const ToyPrompt& prompt : prompts) lines += to_json(prompt).dump() + "\n";
  write_file_atomically(path, lines);
}

ExitCode toy(const ToyArguments& arguments, Context& context) {
  std::error_code error;
  fs::create_directories(arguments.output_dir, error);
  if (error) throw IoError(fmt::format("cannot create folder {}: {}", arguments.output_dir.string(), error.message()));
  const fs::path corpus = arguments.output_dir / "toy.jsonl";
  AtomicFile file(corpus);
  std::int64_t documents = 0;
  std::int64_t bytes = 0;
  context.progress->start("writing toy corpus", arguments.options.bytes, "B");
  generate_toy_corpus(arguments.options, [&](const std::string& document) {
    file.write(nlohmann::json{{"text", document}}.dump() + "\n");
    ++documents;
    bytes += static_cast<std::int64_t>(document.size());
    context.progress->advance(static_cast<std::int64_t>(document.size()));
  });
  context.progress->finish();
  file.commit();
  const auto prompts = toy_test_prompts(static_cast<std::size_t>(arguments.prompts), arguments.options.seed);
  write_prompts(arguments.output_dir / "test_prompts.jsonl", prompts);
  write_prompts(arguments.output_dir / "quickstart_prompts.jsonl", toy_quickstart_prompts());
  if (context.json) {
    const nlohmann::json report = {
        {"corpus", corpus.string()}, {"documents", documents}, {"text_bytes", bytes}, {"test_prompts", prompts.size()}};
    fmt::print("{}\n", report.dump());
  } else if (!context.quiet) {
    fmt::print("{}: {} documents, {} bytes of text; {} test prompts\n", corpus.string(), with_commas(documents),
               with_commas(bytes), prompts.size());
  }
  return ExitCode::kOk;
}

void add_prepare(CommandLine& command_line) {
  auto arguments = std::make_shared<PrepareArguments>();
  PrepareOptions& options = arguments->options;
  Subcommand& command = command_line.add("data prepare",
                                         "Tokenize text into shards that training reads without tokenizing again.",
                                         "nanochat data prepare --data-dir books/ --tokenizer tokenizer/ --output-dir shards/");
  command.option("data_dir", &arguments->data_dir,
                 "Text to tokenize: files, folders or globs of .txt, .jsonl (each also .gz or .zst) and .parquet; "
                 "- reads standard input.");
  command
      .option("weights", &arguments->weights,
              "Mix the paths of --data-dir: one weight per path, its share of the bytes of text, such as "
              "0.7,0.3. Empty reads the paths one after the other.")
      .comma_separated();
  command.option("mix_until_all", &options.mixture.until_all,
                 "End a mixture when every path has been read once, and repeat the shorter ones until then. By "
                 "default a mixture ends with the first path that ends.");
  command.option("tokenizer", &arguments->tokenizer, "Tokenizer: a folder or file written by `tokenizer train`.");
  command.option("bos_token", &arguments->bos_token,
                 "Special token that begins every document (BOS). It is stored with the tokenizer for all later "
                 "stages. Empty takes the one named by tokenizer_config.json, otherwise <|bos|>, otherwise "
                 "<|endoftext|>.");
  command.option("output_dir", &arguments->output_dir, "Folder for the shards, a copy of the tokenizer and manifest.json.");
  command
      .option("validation_every", &options.validation_every, "Hold out every N-th document for validation; 0 holds out none.")
      .above(1, 0);
  command.option("tokens_per_shard", &options.tokens_per_shard, "Start a new shard after this many tokens.").at_least(1);
  command
      .option("min_document_bytes", &options.reader.min_document_bytes,
              "Split .txt files at blank lines into documents of at least this many bytes.")
      .at_least(1);
  add_text_column(command, options.reader.text_column);
  arguments->skip_bad.declare(command);
  FilterOptions& filters = options.filters;
  command.option("min_bytes", &filters.min_bytes, "Drop documents shorter than this many bytes.").at_least(0);
  command.option("max_bytes", &filters.max_bytes, "Drop documents longer than this many bytes; 0 means no limit.").at_least(0);
  command
      .option("max_symbols", &filters.max_symbols,
              "Drop documents in which a larger share of the characters is neither letter, digit nor white "
              "space. A share from 0 to 1; 1 keeps all.")
      .at_least(0);
  command
      .option("max_repetition", &filters.max_repetition,
              "Drop documents in which a larger share of the text repeats earlier text of the same document. A "
              "share from 0 to 1; 1 keeps all.")
      .at_least(0);
  command.option("drop_duplicates", &filters.drop_duplicates, "Drop documents that are identical to an earlier one.");
  command.option("drop_near_duplicates", &filters.drop_near_duplicates,
                 "Drop documents that are nearly the same as an earlier one (MinHash).");
  command.option("seed", &filters.seed, "Random seed of the hashes that find duplicates.");
  command.option("workers", &options.workers, "Number of threads that tokenize; 0 uses all cores.").at_least(0);
  command.option("resume", &options.resume, "Continue an interrupted run of this command on the same text.");
  command.option("overwrite", &options.overwrite, "Replace shards from an earlier run in the output folder.");
  command.positional("data_dir").required("data_dir").required("tokenizer").required("output_dir");
  command.run([arguments](Context& context) { return prepare(*arguments, context); });
}

void add_toy(CommandLine& command_line) {
  auto arguments = std::make_shared<ToyArguments>();
  Subcommand& command = command_line.add("data toy", "Write a generated toy corpus that a small model learns in minutes.",
                                         "nanochat data toy --output-dir toy/ --bytes 8000000");
  command.option("output_dir", &arguments->output_dir,
                 "Folder for toy.jsonl, test_prompts.jsonl and quickstart_prompts.jsonl.");
  command
      .option("bytes", &arguments->options.bytes,
              "Size of the corpus in bytes. A larger corpus begins with the same text as a smaller one.")
      .at_least(1);
  command.option("prompts", &arguments->prompts, "Number of test prompts. Their phrasings do not occur in the corpus.")
      .at_least(0);
  command.option("seed", &arguments->options.seed, "Random seed for the corpus and the test prompts.");
  command.positional("output_dir").required("output_dir");
  command.run([arguments](Context& context) { return toy(*arguments, context); });
}

}  // namespace

void add_data(CommandLine& command_line) {
  command_line.group("data",
                     "Download data sets, prepare text for training, inspect and validate data, write a "
                     "toy corpus.");
  add_download(command_line);
  add_prepare(command_line);
  add_toy(command_line);
  add_data_inspect(command_line);
  add_data_render(command_line);
  add_data_validate(command_line);
}

}  // namespace nanochat::cli
