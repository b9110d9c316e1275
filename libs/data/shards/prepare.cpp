#include "data/shards/prepare.h"

#include <future>
#include <memory>
#include <string_view>
#include <system_error>
#include <utility>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/folder_lock.h"
#include "core/format.h"
#include "core/interrupt.h"
#include "core/log.h"
#include "core/progress.h"
#include "core/sha256.h"
#include "data/rows/file_form.h"
#include "data/shards/prepare_folder.h"
#include "data/shards/shard.h"
#include "data/shards/tokenize_pipeline.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;

constexpr int kManifestVersion = 1;

// Everything that decides what the shards hold.
nlohmann::json describe_inputs(const std::vector<fs::path>& files, const Tokenizer& tokenizer, const PrepareOptions& options) {
  nlohmann::json inputs = nlohmann::json::array();
  for (const fs::path& file : files) {
    std::error_code error;
    if (is_stream(file)) {  // the number in /dev/fd/63 means nothing
      inputs.push_back({{"file", file == kStandardInput ? kStandardInput : "pipe"}, {"bytes", nullptr}});
      continue;
    }
    const auto bytes = fs::file_size(file, error);
    if (error) throw DataError(fmt::format("cannot open {}: {}", file.string(), error.message()));
    inputs.push_back({{"file", file.generic_string()}, {"bytes", bytes}});
  }
  nlohmann::json described = {
      {"format_version", kManifestVersion},
      {"inputs", std::move(inputs)},
      {"tokenizer",
       {{"type", tokenizer.type()}, {"vocab_size", tokenizer.vocab_size()}, {"fingerprint", tokenizer.fingerprint()}}},
      {"options",
       {{"validation_every", options.validation_every},
        {"tokens_per_shard", options.tokens_per_shard},
        {"min_document_bytes", options.reader.min_document_bytes},
        {"max_document_bytes", options.reader.max_document_bytes},
        {"text_key", options.reader.text_column.empty() ? "text" : options.reader.text_column}}},
  };
  if (options.filters.any()) described["options"]["filters"] = to_json(options.filters);
  if (!options.mixture.weights.empty()) {
    described["options"]["mixture"] = {{"weights", options.mixture.weights}, {"until_all", options.mixture.until_all}};
  }
  return described;
}

// The shards of one split, one after the other. A full one is finished (flushed to the disk, hashed) on a thread of its own
// while the next is written: the tokenizing threads would wait for it otherwise.
class SplitWriter {
 public:
  SplitWriter(std::string split, PrepareFolder& folder, const Tokenizer& tokenizer, std::int64_t tokens_per_shard)
      : split_(std::move(split)), folder_(folder), tokenizer_(tokenizer),
        tokens_per_shard_(static_cast<std::uint64_t>(tokens_per_shard)) {}

  void add(const TokenizedDocument& document) {
    if (!writer_) {
      path_ = folder_.next_shard(split_, finishing_.valid() ? 1 : 0);
      writer_ = std::make_unique<ShardWriter>(path_, tokenizer_.vocab_size(), tokenizer_.fingerprint());
      checksum_ = 0;
    }
    writer_->add(document.tokens, document.text_bytes);
    checksum_ = add_to_checksum(checksum_, document.text_checksum);
    if (writer_->tokens() >= tokens_per_shard_) finish();
  }

  void finish() {
    if (!writer_) return;
    settle();
    finishing_ = std::async(std::launch::async,
                            [writer = std::move(writer_), path = path_, split = split_, checksum = checksum_] {
                              const ShardInfo info = writer->finish();
                              return ShardRow{.file = path.filename().string(),
                                              .split = split,
                                              .documents = info.documents,
                                              .tokens = info.tokens,
                                              .text_bytes = info.text_bytes,
                                              .bytes = fs::file_size(path),
                                              .text_checksum = checksum,
                                              .sha256 = sha256_hex_of_file(path)};
                            });
  }

  // Waits for the shard that is being finished, and lists it.
  void settle() {
    if (finishing_.valid()) folder_.add(finishing_.get());
  }

 private:
  std::string split_;
  PrepareFolder& folder_;
  const Tokenizer& tokenizer_;
  std::uint64_t tokens_per_shard_;
  fs::path path_;
  std::unique_ptr<ShardWriter> writer_;
  std::uint32_t checksum_ = 0;
  std::future<ShardRow> finishing_;
};

// Passes over the documents of one split that are in finished shards already, and makes sure that they are the text that
// those were made of.
class FinishedDocuments {
 public:
  explicit FinishedDocuments(const std::vector<ShardRow>& rows) : rows_(rows) {}

  // True for a document that is in a shard.
  bool pass(std::string_view text) {
    if (shard_ == rows_.size()) return false;
    checksum_ = add_to_checksum(checksum_, checksum_of(text));
    if (++documents_ < rows_[shard_].documents) return true;
    if (checksum_ != rows_[shard_].text_checksum) fail();
    ++shard_;
    documents_ = 0;
    checksum_ = 0;
    return true;
  }
  void at_end() const {
    if (shard_ < rows_.size()) fail();
  }

 private:
  [[noreturn]] void fail() const {
    throw DataError(
        fmt::format("the text is not the one that {} was made of, though its files have the same names and "
                    "sizes; --overwrite prepares the folder anew",
                    rows_[shard_].file));
  }

  std::vector<ShardRow> rows_;
  std::size_t shard_ = 0;
  std::uint64_t documents_ = 0;  // of this shard
  std::uint32_t checksum_ = 0;
};

// Reads all documents and hands out those that are in no finished shard, with their numbers in the corpus: text is read
// again, which is cheap and finds a text that has changed, but not tokenized again.
class RemainingDocuments : public DocumentReader {
 public:
  RemainingDocuments(std::unique_ptr<DocumentReader> reader, const PrepareFolder& folder, std::int64_t validation_every)
      : reader_(std::move(reader)), train_(folder.rows("train")), validation_(folder.rows("validation")),
        validation_every_(validation_every) {}

  bool next(std::string& document) override {
    passed_ = false;
    if (!reader_->next(document)) {
      train_.at_end();
      validation_.at_end();
      return false;
    }
    FinishedDocuments& split = is_validation_document(index_++, validation_every_) ? validation_ : train_;
    passed_ = split.pass(document);
    return true;
  }
  // Of the last document: whether it is to be tokenized. After an interrupt every one is, so that the writing thread,
  // which waits for a document, gets one and sees the interrupt.
  bool wanted() const { return !passed_ || interrupt_requested(); }
  std::uint64_t bytes_read() const override { return reader_->bytes_read(); }
  std::uint64_t bytes_total() const override { return reader_->bytes_total(); }

 private:
  std::unique_ptr<DocumentReader> reader_;
  FinishedDocuments train_, validation_;
  std::int64_t validation_every_;
  std::uint64_t index_ = 0;
  bool passed_ = false;
};

PrepareResult result_of(const PrepareFolder& folder) {
  PrepareResult result;
  for (const char* split : {"train", "validation"}) {
    const bool train = split == std::string_view("train");
    for (const ShardRow& row : folder.rows(split)) {
      (train ? result.train_documents : result.validation_documents) += row.documents;
      (train ? result.train_tokens : result.validation_tokens) += row.tokens;
      result.text_bytes += row.text_bytes;
      result.shards.push_back(folder.path() / row.file);
    }
  }
  return result;
}

// Writes `document`, if there are `more`, and what follows it. False when an interrupt ended it, with whole shards so far.
bool write_shards(TokenizePipeline& pipeline, TokenizedDocument& document, const Tokenizer& tokenizer,
                  const PrepareOptions& options, PrepareFolder& folder, ProgressReporter& progress, std::int64_t total,
                  bool more) {
  SplitWriter train("train", folder, tokenizer, options.tokens_per_shard);
  SplitWriter validation("validation", folder, tokenizer, options.tokens_per_shard);
  std::uint64_t reported = 0;
  std::uint64_t tokens = result_of(folder).train_tokens + result_of(folder).validation_tokens;
  bool interrupted = false;
  progress.start("preparing", total, "B");
  for (; more && !(interrupted = interrupt_requested()); more = pipeline.next(document)) {
    (is_validation_document(document.index, options.validation_every) ? validation : train).add(document);
    tokens += document.tokens.size();
    if (document.bytes_read > reported) {
      progress.note(fmt::format("{} tokens", with_commas(static_cast<std::int64_t>(tokens))));
      progress.advance(static_cast<std::int64_t>(document.bytes_read - reported));
      reported = document.bytes_read;
    }
  }
  if (!interrupted) {
    train.finish();
    validation.finish();
  }
  train.settle();
  validation.settle();
  if (!interrupted) {
    if (static_cast<std::int64_t>(reported) < total) progress.advance(total - static_cast<std::int64_t>(reported));
  }
  progress.finish();
  return !interrupted;
}

// With weights a source for each path, otherwise one of them all.
std::vector<std::vector<fs::path>> expand_sources(const std::vector<std::string>& paths, const PrepareOptions& options) {
  if (options.mixture.weights.empty()) return {expand_paths(paths, options.reader)};
  check_weights(options.mixture.weights, paths.size());
  std::vector<std::vector<fs::path>> sources;
  for (const std::string& path : paths) sources.push_back(expand_paths({path}, options.reader));
  return sources;
}

std::unique_ptr<DocumentReader> open_source(std::vector<std::vector<fs::path>> sources, const PrepareOptions& options) {
  if (options.mixture.weights.empty()) return open_documents(std::move(sources[0]), options.reader);
  return open_document_mixture(std::move(sources), options.mixture, options.reader);
}

// What the manifest says of rows that were passed over.
nlohmann::json skipped_rows(const ReaderOptions& reader) {
  if (!reader.bad_rows || reader.bad_rows->count() == 0) return nlohmann::json::object();
  nlohmann::json examples = nlohmann::json::array();
  for (const std::string& example : reader.bad_rows->examples()) examples.push_back(replace_invalid_utf8(example));
  return {{"skipped_rows", {{"rows", reader.bad_rows->count()}, {"examples", std::move(examples)}}}};
}

void check(const PrepareOptions& options, const Tokenizer& tokenizer) {
  if (options.tokens_per_shard < 1) {
    throw ConfigError(fmt::format("tokens per shard is {}, expected 1 or more", options.tokens_per_shard));
  }
  tokenizer.bos_id();  // training begins every document with it: refuse now and not after hours of work
  if (tokenizer.fingerprint().empty()) throw TokenizerError("the tokenizer has no fingerprint");
}

}  // namespace

PrepareResult prepare_shards(const std::vector<std::string>& paths, const Tokenizer& tokenizer, const fs::path& output,
                             const PrepareOptions& options, ProgressReporter& progress) {
  check(options, tokenizer);
  std::vector<std::vector<fs::path>> sources = expand_sources(paths, options);
  std::vector<fs::path> files;
  for (const auto& source : sources) files.insert(files.end(), source.begin(), source.end());
  nlohmann::json description = describe_inputs(files, tokenizer, options);
  const FolderLock lock(output, "data prepare");
  PrepareFolder folder(output, std::move(description), lock.created_folder());
  folder.inspect(options.resume, options.overwrite);
  if (folder.complete()) {
    log_info("{}: all {} shards stand already", output.string(), result_of(folder).shards.size());
    return result_of(folder);
  }
  auto source = open_source(std::move(sources), options);
  const FilteredDocuments* filtered = nullptr;
  if (options.filters.any()) {
    FilterOptions filters = options.filters;
    filters.threads = options.workers;
    auto with_filters = std::make_unique<FilteredDocuments>(std::move(source), filters);
    filtered = with_filters.get();
    source = std::move(with_filters);
  }
  // Behind the filters: what an earlier call dropped is found again by reading the text again, and so is what it kept.
  auto remaining = std::make_unique<RemainingDocuments>(std::move(source), folder, options.validation_every);
  const auto total = static_cast<std::int64_t>(remaining->bytes_total());
  const RemainingDocuments* documents = remaining.get();
  TokenizePipeline pipeline(std::move(remaining), tokenizer, options.workers,
                            [documents](std::uint64_t) { return documents->wanted(); });
  TokenizedDocument document;
  const std::size_t kept = result_of(folder).shards.size();
  if (kept > 0) log_info("{}: {} whole shards are kept; going on behind them", output.string(), kept);
  const bool more = pipeline.next(document);  // an unreadable or empty corpus fails here, before anything is written
  if (filtered != nullptr && !more && kept == 0) {
    throw DataError(fmt::format("none of {} documents passes the filters", filtered->report().documents));
  }
  bool interrupted = false;
  try {
    folder.claim();
    tokenizer.save(output);
    interrupted = !write_shards(pipeline, document, tokenizer, options, folder, progress, total, more);
    // At the end of the text the reading thread, which filters, is done.
    if (!interrupted && filtered != nullptr) {
      write_file_atomically(folder.filters(), to_json(filtered->report()).dump(2, ' ', false) + "\n");
    }
    if (!interrupted) folder.finish(skipped_rows(options.reader));
  } catch (...) {
    folder.give_up();
    throw;
  }
  PrepareResult result = result_of(folder);
  if (!interrupted && filtered != nullptr) result.filtered = filtered->report();
  result.interrupted = interrupted;
  return result;
}

}  // namespace nanochat
