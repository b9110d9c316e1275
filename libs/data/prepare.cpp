#include "data/prepare.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/format.h"
#include "core/interrupt.h"
#include "core/progress.h"
#include "core/sha256.h"
#include "data/shard.h"
#include "data/tokenize_pipeline.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;

constexpr int kManifestVersion = 1;

// Everything that decides what the shards hold.
nlohmann::json describe_inputs(const std::vector<fs::path>& files, const Tokenizer& tokenizer,
                               const PrepareOptions& options) {
  nlohmann::json inputs = nlohmann::json::array();
  for (const fs::path& file : files) {
    std::error_code error;
    const auto bytes = fs::file_size(file, error);
    if (error) throw DataError(fmt::format("cannot open {}: {}", file.string(), error.message()));
    inputs.push_back({{"file", file.generic_string()}, {"bytes", bytes}});
  }
  return {
      {"format_version", kManifestVersion},
      {"inputs", std::move(inputs)},
      {"tokenizer",
       {{"type", tokenizer.type()}, {"vocab_size", tokenizer.vocab_size()}, {"fingerprint", tokenizer.fingerprint()}}},
      {"options",
       {{"validation_every", options.validation_every},
        {"tokens_per_shard", options.tokens_per_shard},
        {"min_document_bytes", options.reader.min_document_bytes},
        {"max_document_bytes", options.reader.max_document_bytes},
        {"text_key", options.reader.text_key}}},
  };
}

// The shards of one split, one after the other.
class SplitWriter {
 public:
  SplitWriter(std::string split, const fs::path& folder, const Tokenizer& tokenizer, std::int64_t tokens_per_shard)
      : split_(std::move(split)),
        folder_(folder),
        tokenizer_(tokenizer),
        tokens_per_shard_(static_cast<std::uint64_t>(tokens_per_shard)) {}

  void add(const TokenizedDocument& document) {
    if (!writer_) {
      path_ = folder_ / fmt::format("{}-{:05}.tok", split_, shards_.size());
      writer_ = std::make_unique<ShardWriter>(path_, tokenizer_.vocab_size(), tokenizer_.fingerprint());
    }
    writer_->add(document.tokens, document.text_bytes);
    if (writer_->tokens() >= tokens_per_shard_) finish();
  }

  void finish() {
    if (!writer_) return;
    const ShardInfo info = writer_->finish();
    writer_.reset();
    documents_ += info.documents;
    tokens_ += info.tokens;
    text_bytes_ += info.text_bytes;
    shards_.push_back(path_);
    rows_.push_back({{"file", path_.filename().string()},
                     {"split", split_},
                     {"documents", info.documents},
                     {"tokens", info.tokens},
                     {"text_bytes", info.text_bytes},
                     {"bytes", fs::file_size(path_)},
                     {"sha256", sha256_hex_of_file(path_)}});
  }

  std::uint64_t documents() const { return documents_; }
  std::uint64_t tokens() const { return tokens_; }
  std::uint64_t text_bytes() const { return text_bytes_; }
  const std::vector<fs::path>& shards() const { return shards_; }
  const nlohmann::json& rows() const { return rows_; }
  nlohmann::json totals() const {
    return {{"documents", documents_}, {"tokens", tokens_}, {"text_bytes", text_bytes_}, {"shards", shards_.size()}};
  }

 private:
  std::string split_;
  fs::path folder_;
  const Tokenizer& tokenizer_;
  std::uint64_t tokens_per_shard_;
  fs::path path_;
  std::unique_ptr<ShardWriter> writer_;
  std::uint64_t documents_ = 0, tokens_ = 0, text_bytes_ = 0;
  std::vector<fs::path> shards_;
  nlohmann::json rows_ = nlohmann::json::array();
};

bool is_shard(const std::string& name) {
  return name.ends_with(".tok") && (name.starts_with("train-") || name.starts_with("validation-"));
}

// What AtomicFile leaves when the process is killed.
bool is_shard_in_the_making(const std::string& name) {
  return (name.starts_with(".train-") || name.starts_with(".validation-")) && name.find(".tok.tmp-") != std::string::npos;
}

// Refuses or clears what an earlier preparation left, and marks the folder as being made.
void claim_folder(const fs::path& output, const nlohmann::json& description, bool overwrite) {
  std::error_code error;
  fs::create_directories(output, error);
  if (error) throw IoError(fmt::format("cannot create folder {}: {}", output.string(), error.message()));
  const fs::path marker = output / "preparing.json";
  const fs::path manifest = output / "manifest.json";
  std::vector<fs::path> shards, leftovers;
  for (const fs::directory_entry& entry : fs::directory_iterator(output)) {
    const std::string name = entry.path().filename().string();
    if (is_shard(name)) shards.push_back(entry.path());
    if (is_shard_in_the_making(name)) leftovers.push_back(entry.path());
  }
  const bool unfinished = !fs::exists(manifest) && fs::exists(marker) &&
                          nlohmann::json::parse(read_file(marker), nullptr, false) == description;
  const bool occupied = fs::exists(manifest) || fs::exists(marker) || !shards.empty();
  if (occupied && !unfinished && !overwrite) {
    throw ConfigError(fmt::format("{} already holds {}; choose another --output-dir, or --overwrite to replace it",
                                  output.string(),
                                  fs::exists(manifest) ? "prepared data (manifest.json)"
                                                       : "an unfinished preparation of other text or options"));
  }
  fs::remove(manifest);
  for (const fs::path& leftover : leftovers) fs::remove(leftover);
  write_file_atomically(marker, description.dump(2) + "\n");
  // The shards of an unfinished preparation of the same text are replaced one by one by their equals.
  if (!unfinished) {
    for (const fs::path& shard : shards) fs::remove(shard);
  }
}

void check(const PrepareOptions& options, const Tokenizer& tokenizer) {
  if (options.tokens_per_shard < 1) {
    throw ConfigError(fmt::format("tokens per shard is {}; 1 or more would be right", options.tokens_per_shard));
  }
  if (tokenizer.fingerprint().empty()) throw TokenizerError("the tokenizer has no fingerprint");
}

}  // namespace

PrepareResult prepare_shards(const std::vector<std::string>& paths, const Tokenizer& tokenizer, const fs::path& output,
                             const PrepareOptions& options, ProgressReporter& progress) {
  check(options, tokenizer);
  const std::vector<fs::path> files = expand_paths(paths);
  nlohmann::json manifest = describe_inputs(files, tokenizer, options);
  std::unique_ptr<DocumentReader> reader = open_documents(files, options.reader);
  const auto total = static_cast<std::int64_t>(reader->bytes_total());
  TokenizePipeline pipeline(std::move(reader), tokenizer, options.workers, [](std::uint64_t) { return true; });
  TokenizedDocument document;
  bool more = pipeline.next(document);  // an unreadable or empty corpus fails here, before anything is written
  claim_folder(output, manifest, options.overwrite);
  tokenizer.save(output);

  SplitWriter train("train", output, tokenizer, options.tokens_per_shard);
  SplitWriter validation("validation", output, tokenizer, options.tokens_per_shard);
  PrepareResult result;
  std::uint64_t reported = 0;
  std::uint64_t tokens = 0;
  progress.start("preparing", total, "B");
  for (; more && !(result.interrupted = interrupt_requested()); more = pipeline.next(document)) {
    (is_validation_document(document.index, options.validation_every) ? validation : train).add(document);
    tokens += document.tokens.size();
    if (document.bytes_read > reported) {
      progress.note(fmt::format("{} tokens", with_commas(static_cast<std::int64_t>(tokens))));
      progress.advance(static_cast<std::int64_t>(document.bytes_read - reported));
      reported = document.bytes_read;
    }
  }
  if (!result.interrupted) {
    train.finish();
    validation.finish();
    if (static_cast<std::int64_t>(reported) < total) progress.advance(total - static_cast<std::int64_t>(reported));
  }
  progress.finish();

  result.train_documents = train.documents();
  result.validation_documents = validation.documents();
  result.train_tokens = train.tokens();
  result.validation_tokens = validation.tokens();
  result.text_bytes = train.text_bytes() + validation.text_bytes();
  result.shards = train.shards();
  result.shards.insert(result.shards.end(), validation.shards().begin(), validation.shards().end());
  if (result.interrupted) return result;

  manifest["train"] = train.totals();
  manifest["validation"] = validation.totals();
  manifest["shards"] = train.rows();
  for (const nlohmann::json& row : validation.rows()) manifest["shards"].push_back(row);
  write_file_atomically(output / "manifest.json", manifest.dump(2) + "\n");
  fs::remove(output / "preparing.json");
  return result;
}

}  // namespace nanochat
