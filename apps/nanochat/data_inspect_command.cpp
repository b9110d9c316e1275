// nanochat data inspect | contamination: what stands in a corpus.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "command_line.h"
#include "commands.h"
#include "core/errors.h"
#include "core/format.h"
#include "core/interrupt.h"
#include "core/json_input.h"
#include "core/progress.h"
#include "core/terminal.h"
#include "data/checks/contamination.h"
#include "data/rows/byte_source.h"
#include "data/rows/paths.h"
#include "data/rows/rows.h"
#include "data/shards/shard.h"
#include "data/text/documents.h"
#include "reader_options.h"
#include "tokenizer/load.h"
#include "tokenizer/tokenizer.h"

namespace nanochat::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;

// -------------------------------------------------------------------------------------------------------- inspect

struct InspectArguments {
  std::vector<std::string> data_dir;
  fs::path tokenizer;
  ReaderOptions reader;
  std::int64_t documents = 3, first = 0, max_tokens = 200, histogram_documents = 100'000;
  std::string color = "auto";
};

// Lengths of documents in powers of two.
class Histogram {
 public:
  void add(std::size_t value) {
    ++counts_[value == 0 ? 0 : 1 + static_cast<std::size_t>(std::log2(static_cast<double>(value)))];
    ++documents_;
    total_ += value;
    shortest_ = std::min(shortest_, value);
    longest_ = std::max(longest_, value);
  }
  void print(const char* unit) const {
    fmt::print("{} documents, {} {} to {}, {:.1f} on average\n", with_commas(static_cast<std::int64_t>(documents_)),
               with_commas(static_cast<std::int64_t>(documents_ > 0 ? shortest_ : 0)), unit,
               with_commas(static_cast<std::int64_t>(longest_)), mean());
    constexpr double kWidth = 50;
    const auto most = static_cast<double>(*std::max_element(counts_.begin(), counts_.end()));
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      if (counts_[i] == 0) continue;
      const auto bar = static_cast<std::size_t>(std::ceil(kWidth * static_cast<double>(counts_[i]) / most));
      fmt::print("{:>10} {:<50} {}\n", i == 0 ? "0" : fmt::format("{}+", std::uint64_t{1} << (i - 1)), std::string(bar, '#'),
                 with_commas(static_cast<std::int64_t>(counts_[i])));
    }
  }
  std::uint64_t total() const { return total_; }
  double mean() const { return documents_ > 0 ? static_cast<double>(total_) / static_cast<double>(documents_) : 0.0; }
  ordered_json to_json() const {
    return {{"documents", documents_}, {"shortest", documents_ > 0 ? shortest_ : 0}, {"longest", longest_}, {"mean", mean()}};
  }

 private:
  std::array<std::uint64_t, 66> counts_{};
  std::uint64_t documents_ = 0, total_ = 0;
  std::size_t shortest_ = std::numeric_limits<std::size_t>::max(), longest_ = 0;
};

// Documents as ids, from shards or from text.
class Documents {
 public:
  virtual ~Documents() = default;
  virtual bool next(std::vector<TokenId>& ids, std::size_t& bytes) = 0;
};

class ShardDocuments : public Documents {
 public:
  explicit ShardDocuments(const std::vector<fs::path>& files) {
    for (const fs::path& file : files) shards_.emplace_back(file);
  }
  bool next(std::vector<TokenId>& ids, std::size_t&) override {
    while (shard_ < shards_.size() && document_ == shards_[shard_].info().documents) {
      ++shard_;
      document_ = 0;
    }
    if (shard_ == shards_.size()) return false;
    ids.clear();
    shards_[shard_].document(document_++, ids);
    return true;
  }

 private:
  std::vector<ShardReader> shards_;
  std::size_t shard_ = 0;
  std::uint64_t document_ = 0;
};

class TextDocuments : public Documents {
 public:
  TextDocuments(std::vector<fs::path> files, const ReaderOptions& options, const Tokenizer& tokenizer)
      : reader_(open_documents(std::move(files), options)), tokenizer_(tokenizer) {}
  bool next(std::vector<TokenId>& ids, std::size_t& bytes) override {
    if (!reader_->next(text_)) return false;
    ids.clear();
    tokenizer_.encode(text_, ids);
    bytes = text_.size();
    return true;
  }

 private:
  std::unique_ptr<DocumentReader> reader_;
  const Tokenizer& tokenizer_;
  std::string text_;
};

std::vector<fs::path> shards_in(const std::vector<std::string>& paths) {
  std::vector<fs::path> shards;
  for (const std::string& path : paths) {
    if (fs::path(path).extension() == ".tok") shards.emplace_back(path);
    if (!fs::is_directory(path)) continue;
    for (const fs::directory_entry& entry : fs::directory_iterator(path)) {
      if (entry.path().extension() == ".tok") shards.push_back(entry.path());
    }
  }
  std::sort(shards.begin(), shards.end());
  return shards;
}

// Tokens one after another, in two colours by turns; without colours, with a bar between them.
void print_tokens(const Tokenizer& tokenizer, const std::vector<TokenId>& ids, std::int64_t most, bool color) {
  const auto shown = std::min(ids.size(), static_cast<std::size_t>(most));
  std::string line;
  for (std::size_t i = 0; i < shown; ++i) {
    const std::string text = replace_invalid_utf8(tokenizer.token_bytes(ids[i]));
    if (color) {
      line += fmt::format("\x1b[{}m{}\x1b[0m", i % 2 == 0 ? "30;46" : "30;43", text);
    } else {
      line += (i > 0 ? "|" : "") + text;
    }
  }
  fmt::print("{}{}\n", line, shown < ids.size() ? fmt::format(" ... {} more tokens", ids.size() - shown) : "");
}

ExitCode inspect(const InspectArguments& arguments, Context& context) {
  const std::vector<fs::path> shards = shards_in(arguments.data_dir);
  fs::path tokenizer_path = arguments.tokenizer;
  if (tokenizer_path.empty() && !shards.empty()) tokenizer_path = shards.front().parent_path();
  if (tokenizer_path.empty()) throw ConfigError("--tokenizer is missing: text is shown in tokens");
  const auto tokenizer = load_tokenizer(tokenizer_path);
  std::unique_ptr<Documents> documents;
  if (shards.empty()) {
    documents = std::make_unique<TextDocuments>(expand_paths(arguments.data_dir, arguments.reader), arguments.reader,
                                                *tokenizer);
  } else {
    documents = std::make_unique<ShardDocuments>(shards);
  }
  const bool color = arguments.color == "always" || (arguments.color == "auto" && wants_color(STDOUT_FILENO));
  Histogram lengths;
  std::vector<TokenId> ids;
  std::size_t bytes = 0, all_bytes = 0;
  ordered_json shown = ordered_json::array();
  for (std::int64_t index = 0; index < std::max(arguments.histogram_documents, arguments.first + arguments.documents) &&
                               !interrupt_requested() && documents->next(ids, bytes);
       ++index) {
    lengths.add(ids.size());
    all_bytes += shards.empty() ? bytes : tokenizer->decode(ids).size();
    if (index < arguments.first || index >= arguments.first + arguments.documents) continue;
    if (context.json) {
      ordered_json tokens = ordered_json::array();
      std::size_t offset = 0;
      for (std::size_t i = 0; i < std::min(ids.size(), static_cast<std::size_t>(arguments.max_tokens)); ++i) {
        const std::string_view token = tokenizer->token_bytes(ids[i]);
        tokens.push_back({{"id", ids[i]}, {"offset", offset}, {"text", replace_invalid_utf8(token)}});
        offset += token.size();
      }
      shown.push_back({{"document", index}, {"length", ids.size()}, {"tokens", std::move(tokens)}});
    } else {
      fmt::print("document {}, {} tokens\n", index, with_commas(static_cast<std::int64_t>(ids.size())));
      print_tokens(*tokenizer, ids, arguments.max_tokens, color);
      fmt::print("\n");
    }
  }
  const double bytes_per_token = lengths.total() > 0 ? static_cast<double>(all_bytes) / static_cast<double>(lengths.total())
                                                     : 0.0;
  if (context.json) {
    fmt::print("{}\n",
               ordered_json{{"lengths", lengths.to_json()}, {"bytes_per_token", bytes_per_token}, {"documents", shown}}.dump());
  } else {
    lengths.print("tokens");
    fmt::print("{:.3f} bytes per token\n", bytes_per_token);
  }
  return ExitCode::kOk;
}

// -------------------------------------------------------------------------------------------------- contamination

struct ContaminationArguments {
  std::vector<std::string> data_dir, against;
  ReaderOptions reader;
  std::int64_t words = 13, max_rows = 20;
};

// Every string in a row, wherever it stands.
void collect_strings(const json& value, std::string& text) {
  if (value.is_string()) {
    text += value.get<std::string>() + "\n";
  } else if (value.is_structured()) {
    for (const json& part : value) collect_strings(part, text);
  }
}

// Calls visit(place, text) with the strings of each row; a line that is no JSON counts as it stands.
void for_each_row(const fs::path& file, const std::function<void(const std::string&, const std::string&)>& visit) {
  constexpr std::size_t kLongestLine = std::size_t{1} << 28;
  const FileFormat format = form_of(file).format;
  if (format == FileFormat::kParquet || format == FileFormat::kJson) {
    const auto rows = open_rows(file);
    for (Row row; rows->next(row);) {
      std::string text;
      collect_strings(row.value, text);
      visit(row.where, text);
    }
    return;
  }
  LineReader lines(open_bytes(file));
  for (std::string line; lines.next(line, kLongestLine);) {
    json row;
    JsonFault fault;
    std::string text;
    if (parse_json_input(line, row, fault)) {
      collect_strings(row, text);
    } else {
      text = line;
    }
    visit(fmt::format("{}:{}", name_of(file), lines.line_number()), text);
  }
}

ExitCode contamination(const ContaminationArguments& arguments, Context& context) {
  ContaminationCheck check(arguments.words);
  std::uint64_t too_short = 0;
  const auto sets = expand_paths(arguments.against,
                                 {FileFormat::kText, FileFormat::kJsonLines, FileFormat::kJson, FileFormat::kParquet},
                                 "evaluation sets",
                                 /*streams=*/true);
  for (const fs::path& file : sets) {
    for_each_row(file, [&](const std::string& where, const std::string& text) {
      if (!text.empty()) too_short += check.add_row(where, text) ? 0 : 1;
    });
  }
  std::uint64_t documents = 0;
  const std::vector<fs::path> files = expand_paths(arguments.data_dir, arguments.reader);
  context.progress->start("contamination", static_cast<std::int64_t>(files.size()), "files");
  for (const fs::path& file : files) {
    const auto reader = open_documents({file}, arguments.reader);
    std::uint64_t index = 0;
    for (std::string text; !interrupt_requested() && reader->next(text); ++index, ++documents) {
      check.scan(text, fmt::format("{}: document {}", name_of(file), index));
    }
    context.progress->advance(1);
  }
  context.progress->finish();
  const auto rows = check.contaminated();
  if (context.json) {
    ordered_json list = ordered_json::array();
    for (const auto& row : rows) {
      list.push_back({{"row", row.name}, {"overlap", row.share()}, {"ngrams", row.grams}, {"first", row.first}});
    }
    fmt::print("{}\n", ordered_json{{"documents", documents},
                                    {"rows", check.rows()},
                                    {"too_short", too_short},
                                    {"words", arguments.words},
                                    {"contaminated", rows.size()},
                                    {"found", list}}
                           .dump());
    return ExitCode::kOk;
  }
  fmt::print("{} of {} rows share {} words in a row with the corpus of {} documents; {} rows are shorter\n",
             with_commas(static_cast<std::int64_t>(rows.size())), with_commas(static_cast<std::int64_t>(check.rows())),
             arguments.words, with_commas(static_cast<std::int64_t>(documents)), too_short);
  for (std::size_t i = 0; i < std::min(rows.size(), static_cast<std::size_t>(arguments.max_rows)); ++i) {
    fmt::print("{:>5.1f} %  {}  first in {}\n", 100.0 * rows[i].share(), rows[i].name, rows[i].first);
  }
  return ExitCode::kOk;
}

}  // namespace

void add_data_inspect(CommandLine& command_line) {
  auto inspected = std::make_shared<InspectArguments>();
  Subcommand& show = command_line.add("data inspect", "Show documents split into tokens, and a histogram of document lengths.",
                                      "nanochat data inspect shards/ --documents 2");
  show.option("data_dir", &inspected->data_dir, "Token shards (a folder or .tok files) or text.");
  show.option("tokenizer", &inspected->tokenizer, "Tokenizer folder or file; default: the one beside the token shards.");
  show.option("documents", &inspected->documents, "Number of documents to show.").at_least(0);
  show.option("first", &inspected->first, "Number of the first document to show, counted from 0.").at_least(0);
  show.option("max_tokens", &inspected->max_tokens, "Number of tokens to show of each document.").at_least(1);
  show.option("histogram_documents", &inspected->histogram_documents, "Measure the lengths of at most this many documents.")
      .at_least(1);
  add_text_column(show, inspected->reader.text_column);
  show.option("color", &inspected->color,
              "Show neighbouring tokens in different colours. auto does so on a terminal, unless NO_COLOR is set or TERM "
              "is dumb.")
      .one_of({"auto", "always", "never"});
  show.positional("data_dir").required("data_dir");
  show.run([inspected](Context& context) { return inspect(*inspected, context); });

  auto checked = std::make_shared<ContaminationArguments>();
  Subcommand& check = command_line.add("data contamination",
                                       "Search a corpus for rows of evaluation sets by matching word n-grams.",
                                       "nanochat data contamination corpus.jsonl --against gsm8k/test.jsonl arc/test.jsonl");
  check.option("data_dir", &checked->data_dir,
               "Corpus to search: files, folders or globs of .txt, .jsonl (each also .gz or .zst) and .parquet.");
  check.option("against", &checked->against,
               "Evaluation sets: .jsonl or .txt with one row per line, .json or .parquet. Every string of a row is compared.");
  check.option("words", &checked->words, "Length of an n-gram in words.").at_least(1);
  check.option("max_rows", &checked->max_rows, "Print at most this many contaminated rows.").at_least(0);
  add_text_column(check, checked->reader.text_column);
  check.positional("data_dir").required("data_dir").required("against");
  check.run([checked](Context& context) { return contamination(*checked, context); });
}

}  // namespace nanochat::cli
