// nanochat tokenizer train | info | encode | decode
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "command_line.h"
#include "commands.h"
#include "core/elapsed.h"
#include "core/folder_lock.h"
#include "core/format.h"
#include "core/git_lfs.h"
#include "core/json_input.h"
#include "core/log.h"
#include "core/random.h"
#include "data/rows/byte_source.h"
#include "data/text/documents.h"
#include "reader_options.h"
#include "tokenizer/byte_bpe.h"
#include "tokenizer/document_sample.h"
#include "tokenizer/load.h"
#include "tokenizer/train.h"

namespace nanochat::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

// ---------------------------------------------------------------------------------------------------------- train

struct TrainArguments {
  std::string type = "sentencepiece";
  std::vector<std::string> data_dir;
  fs::path output_dir;
  std::int64_t validation_every = 20;
  ReaderOptions reader;
  SkipBad skip_bad;
  TokenizerTrainOptions options;
};

struct Corpus {
  std::uint64_t documents = 0, bytes = 0;  // training documents read
  std::vector<std::string> held_out;       // a sample of the others
};

std::shared_ptr<const Tokenizer> train_on(const TrainArguments& arguments, ProgressReporter& progress, Corpus& corpus) {
  constexpr std::int64_t kHeldOutBytes = 4 << 20;
  const auto reader = open_documents(expand_paths(arguments.data_dir, arguments.reader), arguments.reader);
  DocumentSample held_out(kHeldOutBytes, derive_seed(arguments.options.seed, "tokenizer held-out sample"));
  std::uint64_t index = 0, reported = 0;
  progress.start("reading", static_cast<std::int64_t>(reader->bytes_total()), "B");
  const auto next = [&](std::string& document) {
    while (reader->next(document)) {
      progress.advance(static_cast<std::int64_t>(reader->bytes_read() - reported));
      reported = reader->bytes_read();
      if (is_validation_document(index++, arguments.validation_every)) {
        held_out.offer(std::move(document));
        continue;
      }
      ++corpus.documents;
      corpus.bytes += document.size();
      return true;
    }
    progress.finish();
    log_info("training on {} documents", with_commas(static_cast<std::int64_t>(corpus.documents)));
    return false;
  };
  auto tokenizer = arguments.type == "bpe" ? train_byte_bpe(next, arguments.options)
                                           : train_sentencepiece(next, arguments.options);
  corpus.held_out = held_out.take();
  return tokenizer;
}

ExitCode train(TrainArguments& arguments, Context& context) {
  arguments.skip_bad.apply(arguments.reader);
  // Made before the work, so that a folder that cannot be is told at once; taken back if the work comes to nothing.
  const FolderLock lock(arguments.output_dir, "tokenizer train");
  const auto start = SteadyClock::now();
  Corpus corpus;
  const std::shared_ptr<const Tokenizer> tokenizer = train_on(arguments, *context.progress, corpus);
  if (arguments.reader.bad_rows) arguments.reader.bad_rows->log();
  const double seconds = seconds_since(start);
  tokenizer->save(arguments.output_dir);

  std::size_t bytes = 0, tokens = 0;
  for (const auto& ids : tokenizer->encode_batch(corpus.held_out, arguments.options.threads)) tokens += ids.size();
  for (const std::string& document : corpus.held_out) bytes += document.size();
  const double bytes_per_token = tokens > 0 ? static_cast<double>(bytes) / static_cast<double>(tokens) : 0.0;
  if (context.json) {
    const ordered_json report = {{"output_dir", arguments.output_dir.string()},
                                 {"type", tokenizer->type()},
                                 {"vocab_size", tokenizer->vocab_size()},
                                 {"fingerprint", tokenizer->fingerprint()},
                                 {"train_documents", corpus.documents},
                                 {"train_bytes", corpus.bytes},
                                 {"skipped_rows", skipped_to_json(arguments.reader)},
                                 {"held_out_documents", corpus.held_out.size()},
                                 {"held_out_bytes", bytes},
                                 {"bytes_per_token", tokens > 0 ? ordered_json(bytes_per_token) : ordered_json(nullptr)},
                                 {"seconds", seconds}};
    fmt::print("{}\n", report.dump());
  } else if (!context.quiet) {
    fmt::print("{}: {} tokens, trained on {} documents ({}) in {}\n", arguments.output_dir.string(),
               with_commas(tokenizer->vocab_size()), with_commas(static_cast<std::int64_t>(corpus.documents)),
               human_bytes(static_cast<double>(corpus.bytes)), human_duration(seconds));
    if (tokens > 0) {
      fmt::print("{:.3f} bytes per token on {} held-out documents ({})\n", bytes_per_token, corpus.held_out.size(),
                 human_bytes(static_cast<double>(bytes)));
    }
  }
  return ExitCode::kOk;
}

void add_train_command(CommandLine& command_line) {
  auto arguments = std::make_shared<TrainArguments>();
  TokenizerTrainOptions& options = arguments->options;
  Subcommand& command = command_line.add(
      "tokenizer train", "Train a tokenizer on text: SentencePiece BPE or byte-level BPE.",
      "nanochat tokenizer train --data-dir books/ --vocab-size 4096 --output-dir tokenizer/");
  command.option("data_dir", &arguments->data_dir,
                 "Training text: files, folders or globs of .txt, .jsonl (each also .gz or .zst) and .parquet; - "
                 "reads standard input.");
  command.option("output_dir", &arguments->output_dir,
                 "Folder to write tokenizer.json into; SentencePiece also writes tokenizer.model.");
  command
      .option("type", &arguments->type,
              "Kind of tokenizer. sentencepiece: SentencePiece BPE. bpe: byte-level BPE as in GPT-4 and the Python "
              "nanochat, which trains many times faster.")
      .one_of({"sentencepiece", "bpe"});
  command.option("pattern", &options.pattern,
                 "With --type bpe: pattern that splits text into words, which merges do not cross: nanochat, gpt2, "
                 "cl100k or a regular expression.");
  command.option("vocab_size", &options.vocab_size, "Number of tokens in the vocabulary, including the nine special tokens.")
      .at_least(265)
      .at_most(1 << 17);
  command
      .option("max_bytes", &options.max_bytes,
              "Train on at most this many bytes of text. 0 uses the default of the type: for sentencepiece a sample of 1 "
              "GB over the whole corpus, for bpe the first 10 GB.")
      .at_least(0);
  command.option("max_document_bytes", &options.max_document_bytes, "Use only the first N bytes of a longer document.")
      .at_least(4);
  command
      .option("validation_every", &arguments->validation_every,
              "Leave out every N-th document. Use the same value as for `data prepare` and `pretrain`, which hold out these "
              "documents for validation. 0 uses all documents.")
      .above(1, 0);
  command
      .option("min_document_bytes", &arguments->reader.min_document_bytes,
              "Split .txt files at blank lines into documents of at least this many bytes.")
      .at_least(1);
  add_text_column(command, arguments->reader.text_column);
  arguments->skip_bad.declare(command);
  command.option("threads", &options.threads, "Number of threads; 0 uses all cores.").at_least(0);
  command.option("seed", &options.seed, "Random seed for sampling documents.");
  command.positional("data_dir").required("data_dir").required("output_dir");
  command.run([arguments](Context& context) { return train(*arguments, context); });
}

// ------------------------------------------------------------------------------------- what the others have in
// common

struct TokenizerArguments {
  fs::path tokenizer;
  TokenizerLoadOptions load;
};

void add_tokenizer_options(Subcommand& command, TokenizerArguments& arguments) {
  command.option("tokenizer", &arguments.tokenizer,
                 "Tokenizer to load: a folder or checkpoint with tokenizer.json, or a tokenizer.json, tokenizer.model or "
                 ".tiktoken rank file.");
  command.option("pattern", &arguments.load.pattern,
                 "Split pattern of a .tiktoken rank file: nanochat, gpt2, cl100k or a regular expression; empty detects it "
                 "from the file.");
  command
      .option("special", &arguments.load.special,
              "Special tokens to add to a .tiktoken rank file, or to a tokenizer.model without a tokenizer.json, because these "
              "files do not list them. nanochat: the nine tokens of the chat format, such as <|bos|> and <|user_start|>. none: "
              "no token. Empty: none for OpenAI's gpt2 and cl100k files, otherwise nanochat.")
      .one_of({"", "nanochat", "none"});
  command.option("bos_token", &arguments.load.bos_token,
                 "Special token that begins every document (BOS). Empty takes the one named by "
                 "tokenizer_config.json, otherwise <|bos|>, otherwise <|endoftext|>.");
  command.required("tokenizer");
}

// Standard input when no file is named. Errors name it "standard input".
class Input {
 public:
  explicit Input(const fs::path& path) : path_(path.empty() ? fs::path(kStandardInput) : path) {
    if (path_ == kStandardInput) return;
    if (!fs::exists(path_) || fs::is_directory(path_)) throw DataError(fmt::format("{}: no such file", name()));
    refuse_lfs_pointer(path_);
  }
  std::string name() const { return name_of(path_); }
  // Every byte as it is.
  std::string all() const {
    if (path_ == kStandardInput) return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
    std::ifstream file(path_, std::ios::binary);
    if (!file) throw DataError(fmt::format("{}: cannot be read", name()));
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }
  LineReader lines() const { return LineReader(open_bytes(path_)); }

 private:
  fs::path path_;
};

void write_output(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) throw IoError("cannot write to standard output");
}

// Calls visit(object, place) for each line of JSON that is not blank.
void for_each_row(const Input& input, const std::function<void(const nlohmann::json&, const std::string&)>& visit) {
  constexpr std::size_t kLongestLine = std::size_t{1} << 30;
  LineReader lines = input.lines();
  for (std::string line; lines.next(line, kLongestLine);) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = fmt::format("{}:{}", input.name(), lines.line_number());
    if (!lines.ends_line())
      throw DataError(fmt::format("{}: a line of more than {} is no row", where, human_bytes(kLongestLine)));
    visit(parse_json_input(line, where), where);
  }
}

// ----------------------------------------------------------------------------------------------------------- info

std::vector<std::string> sample_tokens(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::string> tokens;
  for (const TokenId id : tokenizer.encode(text)) tokens.push_back(replace_invalid_utf8(tokenizer.token_bytes(id)));
  return tokens;
}

// How a byte-level tokenizer cuts text, and what it does to it before.
void describe_steps(const ByteBpeTokenizer& tokenizer, ordered_json& report) {
  const TextSteps& steps = tokenizer.steps();
  if (steps.splits.empty()) report["pattern"] = tokenizer.pattern();
  if (!steps.splits.empty()) report["pre_tokenizer"] = ordered_json::parse(steps.pre_tokenizer_json);
  if (!steps.normalizer.empty()) report["normalizer"] = ordered_json::parse(steps.normalizer_json);
  ordered_json added = ordered_json::object();
  for (const AddedToken& token : steps.added) {
    if (!token.special) added[token.content] = token.id;
  }
  if (!added.empty()) report["added_tokens"] = added;
}

void print_steps(const ByteBpeTokenizer& tokenizer) {
  ordered_json report = ordered_json::object();
  describe_steps(tokenizer, report);
  if (report.contains("normalizer")) fmt::print("normalizer      {}\n", report["normalizer"].dump());
  if (report.contains("pattern")) {
    fmt::print("split pattern   {}: {}\n", pattern_name(tokenizer.pattern()), tokenizer.pattern());
  } else {
    fmt::print("pre-tokenizer   {}\n", report["pre_tokenizer"].dump());
  }
  if (report.contains("added_tokens")) {
    for (const auto& [name, id] : report["added_tokens"].items()) {
      fmt::print("added           {:>6} {}\n", id.get<TokenId>(), ordered_json(name).dump());
    }
  }
}

ExitCode info(const TokenizerArguments& arguments, Context& context) {
  constexpr std::string_view kSample = "Hello, world! In 2024 it's 3.14 \xE2\x82\xAC.";
  const auto tokenizer = load_tokenizer(arguments.tokenizer, arguments.load);
  const auto* bpe = dynamic_cast<const ByteBpeTokenizer*>(tokenizer.get());
  const std::vector<std::int32_t> lengths = tokenizer->token_byte_lengths();
  ordered_json specials = ordered_json::object();
  for (const std::string& name : tokenizer->special_tokens()) specials[name] = tokenizer->require_special(name);
  const std::vector<std::string> sample = sample_tokens(*tokenizer, kSample);
  if (context.json) {
    ordered_json report = {{"type", tokenizer->type()},
                           {"vocab_size", tokenizer->vocab_size()},
                           {"fingerprint", tokenizer->fingerprint()},
                           {"special_tokens", specials},
                           {"longest_token_bytes", *std::max_element(lengths.begin(), lengths.end())},
                           {"sample", {{"text", kSample}, {"ids", tokenizer->encode(kSample)}, {"tokens", sample}}}};
    if (bpe != nullptr) describe_steps(*bpe, report);
    fmt::print("{}\n", report.dump());
    return ExitCode::kOk;
  }
  fmt::print("type            {}\n", tokenizer->type());
  fmt::print("vocabulary      {} tokens, {} of them special\n", with_commas(tokenizer->vocab_size()), specials.size());
  if (bpe != nullptr) print_steps(*bpe);
  fmt::print("longest token   {} bytes\n", *std::max_element(lengths.begin(), lengths.end()));
  fmt::print("fingerprint     {}\n", tokenizer->fingerprint());
  for (const auto& [name, id] : specials.items()) fmt::print("special         {:>6} {}\n", id.get<TokenId>(), name);
  fmt::print("sample          {} is {} tokens: {}\n", ordered_json(kSample).dump(), sample.size(), ordered_json(sample).dump());
  return ExitCode::kOk;
}

void add_info_command(CommandLine& command_line) {
  auto arguments = std::make_shared<TokenizerArguments>();
  Subcommand& command = command_line.add("tokenizer info", "Describe a tokenizer: type, vocabulary size, special tokens.",
                                         "nanochat tokenizer info tokenizer/");
  add_tokenizer_options(command, *arguments);
  command.positional("tokenizer");
  command.run([arguments](Context& context) { return info(*arguments, context); });
}

// --------------------------------------------------------------------------------------------------------- encode

struct EncodeArguments {
  TokenizerArguments tokenizer;
  fs::path input;
  bool jsonl = false, add_bos = false;
  std::string text_column;
  int threads = 0;
};

// Encodes what has gathered, in parallel, and writes a line for each.
void flush_rows(const Tokenizer& tokenizer, const EncodeArguments& arguments, std::vector<std::string>& texts) {
  std::string out;
  for (std::vector<TokenId>& ids : tokenizer.encode_batch(texts, arguments.threads)) {
    if (arguments.add_bos) ids.insert(ids.begin(), tokenizer.bos_id());
    out += fmt::format("{{\"ids\":[{}]}}\n", fmt::join(ids, ","));
  }
  write_output(out);
  texts.clear();
}

ExitCode encode(const EncodeArguments& arguments, Context& context) {
  constexpr std::size_t kBatchBytes = 16 << 20, kBatchRows = 4096;
  const auto tokenizer = load_tokenizer(arguments.tokenizer.tokenizer, arguments.tokenizer.load);
  const Input input(arguments.input);
  std::vector<std::string> texts;
  if (arguments.jsonl) {
    std::size_t bytes = 0;
    const std::string column = arguments.text_column.empty() ? "text" : arguments.text_column;
    for_each_row(input, [&](const nlohmann::json& row, const std::string& where) {
      const auto text = row.is_object() ? row.find(column) : row.end();
      if (text == row.end() || !text->is_string()) {
        throw DataError(fmt::format("{}: expected an object with the text under \"{}\"; --text-column names another key", where,
                                    column));
      }
      texts.push_back(text->get<std::string>());
      bytes += texts.back().size();
      if (bytes < kBatchBytes && texts.size() < kBatchRows) return;
      flush_rows(*tokenizer, arguments, texts);
      bytes = 0;
    });
    flush_rows(*tokenizer, arguments, texts);
    return ExitCode::kOk;
  }
  if (context.json) {
    texts.push_back(input.all());
    flush_rows(*tokenizer, arguments, texts);
    return ExitCode::kOk;
  }
  std::vector<TokenId> ids;
  if (arguments.add_bos) ids.push_back(tokenizer->bos_id());
  tokenizer->encode(input.all(), ids);
  write_output(fmt::format("{}\n", fmt::join(ids, " ")));
  return ExitCode::kOk;
}

void add_encode_command(CommandLine& command_line) {
  auto arguments = std::make_shared<EncodeArguments>();
  Subcommand& command = command_line.add("tokenizer encode",
                                         "Encode text as token ids: one text, or with --jsonl one text per line.",
                                         "nanochat tokenizer encode --tokenizer tokenizer/ --jsonl < texts.jsonl > ids.jsonl");
  add_tokenizer_options(command, arguments->tokenizer);
  command.option("input", &arguments->input, "File to read; empty reads standard input.");
  command.option("jsonl", &arguments->jsonl, "Read lines of {\"text\":...} and write lines of {\"ids\":[...]}.");
  command.option("text_column", &arguments->text_column, "With --jsonl: key of the text in each row; empty means text.")
      .formerly("text_key");
  command.option("add_bos", &arguments->add_bos, "Put the BOS token before the text.");
  command.option("threads", &arguments->threads, "Number of threads that encode rows; 0 uses all cores.").at_least(0);
  command.positional("input");
  command.run([arguments](Context& context) { return encode(*arguments, context); });
}

// --------------------------------------------------------------------------------------------------------- decode

struct DecodeArguments {
  TokenizerArguments tokenizer;
  fs::path input;
  bool jsonl = false;
};

// Numbers separated by white space, commas or brackets.
std::vector<TokenId> parse_ids(std::string_view text, const std::string& source) {
  constexpr std::string_view kSeparators = " \t\r\n,[]";
  std::vector<TokenId> ids;
  while (true) {
    text.remove_prefix(std::min(text.find_first_not_of(kSeparators), text.size()));
    if (text.empty()) return ids;
    const std::string_view word = text.substr(0, text.find_first_of(kSeparators));
    TokenId id = 0;
    const auto parsed = std::from_chars(word.data(), word.data() + word.size(), id);
    if (parsed.ec != std::errc() || parsed.ptr != word.data() + word.size()) {
      throw DataError(fmt::format("{}: \"{}\" is not a token id; expected numbers such as 72 105", source,
                                  replace_invalid_utf8(word.substr(0, 40))));
    }
    ids.push_back(id);
    text.remove_prefix(word.size());
  }
}

std::vector<TokenId> row_ids(const nlohmann::json& row, const std::string& where) {
  const auto ids = row.is_object() ? row.find("ids") : row.end();
  const auto is_id = [](const nlohmann::json& value) {
    return value.is_number_integer() && value.get<std::int64_t>() >= 0 && value.get<std::int64_t>() <= INT32_MAX;
  };
  if (ids == row.end() || !ids->is_array() || !std::all_of(ids->begin(), ids->end(), is_id)) {
    throw DataError(fmt::format("{}: expected an object with \"ids\", an array of token ids", where));
  }
  return ids->get<std::vector<TokenId>>();
}

ExitCode decode(const DecodeArguments& arguments, Context& context) {
  const auto tokenizer = load_tokenizer(arguments.tokenizer.tokenizer, arguments.tokenizer.load);
  const Input input(arguments.input);
  const auto write_row = [&](const std::vector<TokenId>& ids) {
    write_output(ordered_json{{"text", replace_invalid_utf8(tokenizer->decode(ids))}}.dump() + "\n");
  };
  if (arguments.jsonl) {
    for_each_row(input, [&](const nlohmann::json& row, const std::string& where) { write_row(row_ids(row, where)); });
  } else if (context.json) {
    write_row(parse_ids(input.all(), input.name()));
  } else {
    write_output(tokenizer->decode(parse_ids(input.all(), input.name())));
  }
  return ExitCode::kOk;
}

void add_decode_command(CommandLine& command_line) {
  auto arguments = std::make_shared<DecodeArguments>();
  Subcommand& command = command_line.add("tokenizer decode", "Decode token ids into text, byte for byte.",
                                         "nanochat tokenizer encode --tokenizer tokenizer/ text.txt | "
                                         "nanochat tokenizer decode --tokenizer tokenizer/");
  add_tokenizer_options(command, arguments->tokenizer);
  command.option("input", &arguments->input, "File to read; empty reads standard input.");
  command.option("jsonl", &arguments->jsonl, "Read lines of {\"ids\":[...]} and write lines of {\"text\":...}.");
  command.positional("input");
  command.run([arguments](Context& context) { return decode(*arguments, context); });
}

}  // namespace

void add_tokenizer(CommandLine& command_line) {
  command_line.group("tokenizer", "Train, inspect and compare tokenizers; encode and decode text.");
  add_train_command(command_line);
  add_info_command(command_line);
  add_encode_command(command_line);
  add_decode_command(command_line);
  add_tokenizer_eval(command_line);
}

}  // namespace nanochat::cli
