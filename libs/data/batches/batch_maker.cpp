#include "data/batches/batch_maker.h"

#include <algorithm>
#include <span>
#include <utility>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/random.h"

namespace nanochat {
namespace {

void shape(TokenBatch& batch, const LoaderOptions& options) {
  batch.rows = options.rows;
  batch.sequence_len = options.sequence_len;
  batch.inputs.resize(static_cast<std::size_t>(options.rows * options.sequence_len));
  batch.targets.resize(batch.inputs.size());
}

[[noreturn]] void fail_empty() { throw DataError("no document for this split in the whole text"); }

// Source: tokenizing_distributed_data_loader of nanochat/dataloader.py.
class StreamBatches : public BatchMaker {
 public:
  StreamBatches(std::unique_ptr<TokenSource> source, std::int32_t bos_id, const LoaderOptions& options,
                const LoaderPosition& position)
      : source_(std::move(source)), bos_id_(bos_id), options_(options), position_(position) {
    source_->seek(position_.epoch, position_.document);
  }

  bool make(TokenBatch& batch, const std::stop_token& stop) override {
    const auto needed = static_cast<std::size_t>(options_.rows * options_.sequence_len + 1);
    std::vector<std::int32_t> tokens;
    tokens.reserve(needed);
    while (tokens.size() < needed) {
      if (!have_document_ && !next_document(stop)) return false;
      const auto offset = static_cast<std::size_t>(position_.offset);
      const std::size_t take = std::min(needed - tokens.size(), document_.size() - offset);
      const auto from = document_.begin() + static_cast<std::ptrdiff_t>(offset);
      tokens.insert(tokens.end(), from, from + static_cast<std::ptrdiff_t>(take));
      position_.offset += take;
      position_.last_epoch = position_.epoch;
      if (position_.offset == document_.size()) {
        have_document_ = false;
        position_.document += 1;
        position_.offset = 0;
      }
    }
    shape(batch, options_);
    std::copy(tokens.begin(), tokens.end() - 1, batch.inputs.begin());
    std::copy(tokens.begin() + 1, tokens.end(), batch.targets.begin());
    return true;
  }

  LoaderPosition position() const override { return position_; }

 private:
  bool next_document(const std::stop_token& stop) {
    while (!source_->next(scratch_, stop)) {
      if (stop.stop_requested()) return false;
      if (position_.document == 0) fail_empty();
      if (!options_.loop) return false;
      position_ = {position_.epoch + 1, 0, 0, position_.last_epoch};
      source_->seek(position_.epoch, 0);
    }
    document_.assign(1, bos_id_);
    document_.insert(document_.end(), scratch_.begin(), scratch_.end());
    if (position_.offset >= document_.size()) {
      throw DataError(
          fmt::format("the loader's position, token {} of document {}, is beyond its {} tokens; the text is "
                      "not the one it was taken from",
                      position_.offset, position_.document, document_.size()));
    }
    have_document_ = true;
    return true;
  }

  std::unique_ptr<TokenSource> source_;
  std::int32_t bos_id_;
  LoaderOptions options_;
  LoaderPosition position_;
  std::vector<std::int32_t> document_, scratch_;  // with BOS, without
  bool have_document_ = false;
};

class BestFitBatches : public BatchMaker {
 public:
  BestFitBatches(std::unique_ptr<TokenSource> source, std::int32_t bos_id, const LoaderOptions& options,
                 const LoaderPosition& position)
      : source_(std::move(source)), bos_id_(bos_id), options_(options), position_(position) {
    source_->seek(position_.epoch, position_.document);
  }

  bool make(TokenBatch& batch, const std::stop_token& stop) override {
    shape(batch, options_);
    for (std::int64_t row = 0; row < options_.rows; ++row) {
      if (!have_window_ && !next_window(stop)) return false;
      const std::int64_t at = row * options_.sequence_len;
      window_.copy_row(static_cast<std::size_t>(position_.offset), batch.inputs.data() + at, batch.targets.data() + at);
      position_.offset += 1;
      position_.last_epoch = position_.epoch;
      if (position_.offset == window_.rows()) {
        have_window_ = false;
        position_.document += window_documents_;
        position_.offset = 0;
      }
    }
    return true;
  }

  LoaderPosition position() const override { return position_; }

 private:
  bool next_window(const std::stop_token& stop) {
    DocumentWindow documents = read_window(stop);
    while (documents.ends.empty()) {
      if (stop.stop_requested()) return false;
      if (position_.document == 0) fail_empty();
      if (!options_.loop) return false;
      position_ = {position_.epoch + 1, 0, 0, position_.last_epoch};
      source_->seek(position_.epoch, 0);
      documents = read_window(stop);
    }
    if (stop.stop_requested()) return false;
    window_documents_ = documents.ends.size();
    window_ = PackedWindow(std::move(documents), options_.sequence_len, bos_id_);
    if (position_.offset >= window_.rows()) {
      throw DataError(
          fmt::format("the loader's position, row {} from document {}, is beyond the {} rows there; the "
                      "documents are not the ones it was taken from",
                      position_.offset, position_.document, window_.rows()));
    }
    if (options_.shuffle) {
      Rng rng(derive_seed(options_.seed,
                          fmt::format("rows of epoch {} rank 0 from document {}", position_.epoch, position_.document)));
      window_.shuffle(rng);
    }
    have_window_ = true;
    return true;
  }

  DocumentWindow read_window(const std::stop_token& stop) {
    DocumentWindow documents;
    while (!documents.full() && source_->next(scratch_, stop)) documents.add(scratch_);
    return documents;
  }

  std::unique_ptr<TokenSource> source_;
  std::int32_t bos_id_;
  LoaderOptions options_;
  LoaderPosition position_;
  PackedWindow window_;
  std::uint64_t window_documents_ = 0;
  std::vector<std::int32_t> scratch_;
  bool have_window_ = false;
};

std::string_view packing_name(Packing packing) { return packing == Packing::kStream ? "stream" : "best_fit"; }

std::string_view offset_key(Packing packing) { return packing == Packing::kStream ? "token" : "row"; }

std::uint64_t require_count(const nlohmann::json& json, std::string_view key) {
  const auto value = json.find(std::string(key));
  if (value == json.end() || !value->is_number_integer() || (!value->is_number_unsigned() && value->get<std::int64_t>() < 0)) {
    throw DataError(fmt::format("loader position: \"{}\" is {}, expected a number from 0", key,
                                value == json.end() ? "missing" : value->dump()));
  }
  return value->get<std::uint64_t>();
}

}  // namespace

nlohmann::json to_json(const LoaderPosition& position, const LoaderOptions& options) {
  nlohmann::json json;
  json["packing"] = packing_name(options.packing);
  json["epoch"] = position.epoch;
  json["document"] = position.document;
  json[std::string(offset_key(options.packing))] = position.offset;
  json["last_epoch"] = position.last_epoch;
  if (options.packing == Packing::kBestFit) {
    json["sequence_len"] = options.sequence_len;
    json["shuffle"] = options.shuffle;
    json["seed"] = options.seed;
  }
  return json;
}

LoaderPosition parse_position(const nlohmann::json& json, const LoaderOptions& options) {
  LoaderPosition position;
  if (json.is_null()) return position;
  if (!json.is_object()) {
    throw DataError(fmt::format("loader position: found JSON {}, expected an object", json.type_name()));
  }
  if (json.value("packing", nlohmann::json()) != packing_name(options.packing)) {
    throw DataError(fmt::format("loader position: was taken from a loader of packing {}, this one's is \"{}\"",
                                json.value("packing", nlohmann::json()).dump(), packing_name(options.packing)));
  }
  position.epoch = static_cast<std::int64_t>(require_count(json, "epoch"));
  position.document = require_count(json, "document");
  position.offset = require_count(json, offset_key(options.packing));
  position.last_epoch = static_cast<std::int64_t>(require_count(json, "last_epoch"));
  if (options.packing == Packing::kBestFit) {
    const bool same = require_count(json, "sequence_len") == static_cast<std::uint64_t>(options.sequence_len) &&
                      require_count(json, "seed") == options.seed && json.value("shuffle", nlohmann::json()) == options.shuffle;
    if (!same) position.offset = 0;
  }
  return position;
}

std::unique_ptr<BatchMaker> make_batch_maker(std::unique_ptr<TokenSource> source, std::int32_t bos_id,
                                             const LoaderOptions& options, const LoaderPosition& position) {
  if (options.packing == Packing::kStream) {
    return std::make_unique<StreamBatches>(std::move(source), bos_id, options, position);
  }
  return std::make_unique<BestFitBatches>(std::move(source), bos_id, options, position);
}

}  // namespace nanochat
