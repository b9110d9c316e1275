#include "data/batches/batch_maker.h"

#include <algorithm>
#include <span>
#include <utility>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/random.h"
#include "data/batches/packing.h"

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

class CropBatches : public BatchMaker {
 public:
  CropBatches(std::unique_ptr<TokenSource> source, std::int32_t bos_id, const LoaderOptions& options,
              const LoaderPosition& position)
      : source_(std::move(source)), bos_id_(bos_id), options_(options), position_(position) {}

  bool make(TokenBatch& batch, const std::stop_token& stop) override {
    if (!begun_ && !begin(stop)) return false;
    shape(batch, options_);
    std::vector<std::int32_t> row;
    for (std::int64_t r = 0; r < options_.rows; ++r) {
      if (!fill(row, stop)) return false;
      const std::int64_t at = r * options_.sequence_len;
      std::copy(row.begin(), row.end() - 1, batch.inputs.begin() + at);
      std::copy(row.begin() + 1, row.end(), batch.targets.begin() + at);
      position_.last_epoch = position_.epoch;
    }
    return true;
  }

  LoaderPosition position() const override {
    if (!begun_) return position_;
    LoaderPosition position = position_;
    for (const Waiting& waiting : waiting_) position.waiting.emplace_back(waiting.epoch, waiting.document);
    return position;
  }

 private:
  struct Waiting {
    std::int64_t epoch;
    std::uint64_t document;
    std::vector<std::int32_t> tokens;  // without BOS
  };

  // Reads what the position says is in the buffer. False if `stop` is requested.
  bool begin(const std::stop_token& stop) {
    const auto& waiting = position_.waiting;
    for (std::size_t i = 0; i < waiting.size();) {
      const std::int64_t epoch = waiting[i].first;
      std::vector<std::uint64_t> numbers;
      for (; i < waiting.size() && waiting[i].first == epoch; ++i) numbers.push_back(waiting[i].second);
      std::vector<std::vector<std::int32_t>> documents = source_->documents(epoch, numbers, stop);
      if (documents.size() < numbers.size()) return false;
      for (std::size_t k = 0; k < numbers.size(); ++k) add(epoch, numbers[k], std::move(documents[k]));
    }
    position_.waiting.clear();
    source_->seek(position_.epoch, position_.document);
    begun_ = true;
    return true;
  }

  void add(std::int64_t epoch, std::uint64_t document, std::vector<std::int32_t> tokens) {
    lengths_.push_back(tokens.size() + 1);
    waiting_.push_back({epoch, document, std::move(tokens)});
  }

  // A row of T + 1 tokens. False at the end or if `stop` is requested.
  bool fill(std::vector<std::int32_t>& row, const std::stop_token& stop) {
    row.clear();
    const auto size = static_cast<std::size_t>(options_.sequence_len) + 1;
    while (row.size() < size) {
      while (!ended_ && waiting_.size() < options_.buffer_documents) {
        if (!refill(stop)) return false;
      }
      if (waiting_.empty()) return false;
      const std::size_t room = size - row.size();
      std::size_t chosen = longest_that_fits(lengths_, room);
      if (chosen == lengths_.size()) chosen = shortest_of(lengths_);
      const std::vector<std::int32_t>& tokens = waiting_[chosen].tokens;
      row.push_back(bos_id_);
      const std::size_t taken = std::min(tokens.size(), room - 1);
      row.insert(row.end(), tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(taken));
      waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(chosen));
      lengths_.erase(lengths_.begin() + static_cast<std::ptrdiff_t>(chosen));
    }
    return true;
  }

  // Adds up to refill_documents of one epoch. False if `stop` is requested.
  bool refill(const std::stop_token& stop) {
    for (std::size_t added = 0; added < options_.refill_documents; ++added) {
      if (source_->next(scratch_, stop)) {
        add(position_.epoch, position_.document++, scratch_);
        continue;
      }
      if (stop.stop_requested()) return false;
      if (position_.document == 0) fail_empty();
      ended_ = !options_.loop;
      if (ended_) break;
      position_.epoch += 1;
      position_.document = 0;
      source_->seek(position_.epoch, 0);
      break;
    }
    return true;
  }

  std::unique_ptr<TokenSource> source_;
  std::int32_t bos_id_;
  LoaderOptions options_;
  LoaderPosition position_;  // its `waiting` only until begin() has read them
  std::vector<Waiting> waiting_;
  std::vector<std::size_t> lengths_;  // of waiting_, with BOS
  std::vector<std::int32_t> scratch_;
  bool begun_ = false, ended_ = false;
};

std::string_view packing_name(Packing packing) {
  switch (packing) {
    case Packing::kStream: return "stream";
    case Packing::kBestFit: return "best_fit";
    case Packing::kBestFitCrop: break;
  }
  return "best_fit_crop";
}

std::string_view offset_key(Packing packing) { return packing == Packing::kStream ? "token" : "row"; }

std::uint64_t require_count(const nlohmann::json& json, std::string_view key) {
  const auto value = json.find(std::string(key));
  if (value == json.end() || !value->is_number_integer() || (!value->is_number_unsigned() && value->get<std::int64_t>() < 0)) {
    throw DataError(fmt::format("loader position: \"{}\" is {}, expected a number from 0", key,
                                value == json.end() ? "missing" : value->dump()));
  }
  return value->get<std::uint64_t>();
}

// [[epoch, [document, ...]], ...]
nlohmann::json waiting_to_json(const LoaderPosition& position) {
  nlohmann::json json = nlohmann::json::array();
  for (const auto& [epoch, document] : position.waiting) {
    if (json.empty() || json.back().at(0) != epoch) json.push_back({epoch, nlohmann::json::array()});
    json.back().at(1).push_back(document);
  }
  return json;
}

void parse_waiting(const nlohmann::json& json, LoaderPosition& position) {
  const auto waiting = json.find("waiting");
  try {
    for (const auto& of_epoch : json.at("waiting").get<std::vector<nlohmann::json>>()) {
      const auto epoch = of_epoch.at(0).get<std::int64_t>();
      for (const auto& document : of_epoch.at(1).get<std::vector<nlohmann::json>>()) {
        if (!document.is_number_unsigned()) throw DataError("a document is not a number from 0");
        position.waiting.emplace_back(epoch, document.get<std::uint64_t>());
      }
    }
    const auto not_below = [](const auto& a, const auto& b) { return !(a < b); };
    const bool ascending = std::adjacent_find(position.waiting.begin(), position.waiting.end(), not_below) ==
                           position.waiting.end();
    const std::pair next(position.epoch, position.document);
    if (!ascending || (!position.waiting.empty() && !(position.waiting.back() < next)))
      throw DataError("the documents are not ascending");
  } catch (const std::exception& error) {
    throw DataError(fmt::format("loader position: \"waiting\" is {:.100}, expected epochs and their documents: {}",
                                waiting == json.end() ? "missing" : waiting->dump(), error.what()));
  }
}

}  // namespace

nlohmann::json to_json(const LoaderPosition& position, const LoaderOptions& options) {
  nlohmann::json json;
  json["packing"] = packing_name(options.packing);
  json["epoch"] = position.epoch;
  json["document"] = position.document;
  json["last_epoch"] = position.last_epoch;
  if (options.packing == Packing::kBestFitCrop) {
    json["waiting"] = waiting_to_json(position);
  } else {
    json[std::string(offset_key(options.packing))] = position.offset;
  }
  if (options.packing != Packing::kStream) {
    json["shuffle"] = options.shuffle;
    json["seed"] = options.seed;
  }
  if (options.packing == Packing::kBestFit) json["sequence_len"] = options.sequence_len;
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
  position.last_epoch = static_cast<std::int64_t>(require_count(json, "last_epoch"));
  if (options.packing == Packing::kBestFitCrop) {
    parse_waiting(json, position);
  } else {
    position.offset = require_count(json, offset_key(options.packing));
  }
  if (options.packing == Packing::kStream) return position;
  bool same = require_count(json, "seed") == options.seed && json.value("shuffle", nlohmann::json()) == options.shuffle;
  if (options.packing == Packing::kBestFit) {
    same = require_count(json, "sequence_len") == static_cast<std::uint64_t>(options.sequence_len) && same;
  }
  if (!same) {
    position.offset = 0;
    position.waiting.clear();  // they are numbers in another order
  }
  return position;
}

std::unique_ptr<BatchMaker> make_batch_maker(std::unique_ptr<TokenSource> source, std::int32_t bos_id,
                                             const LoaderOptions& options, const LoaderPosition& position) {
  if (options.packing == Packing::kStream) {
    return std::make_unique<StreamBatches>(std::move(source), bos_id, options, position);
  }
  if (options.packing == Packing::kBestFitCrop) {
    return std::make_unique<CropBatches>(std::move(source), bos_id, options, position);
  }
  return std::make_unique<BestFitBatches>(std::move(source), bos_id, options, position);
}

}  // namespace nanochat
