#include "data/text/filters.h"

#include <exception>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/thread_pool.h"
#include "data/text/text_measures.h"

namespace nanochat {
namespace {

// Measured together on several threads; large enough that starting those costs nothing.
constexpr std::size_t kBatchBytes = 2 << 20;
constexpr std::size_t kBatchDocuments = 4096;
constexpr std::size_t kExamples = 5;
constexpr std::size_t kExampleBytes = 200;

// Keys seen before with the number of the document that had them first: open addressing, 12 bytes a key of 8.
template <typename Key>
class SeenKeys {
 public:
  std::optional<std::uint32_t> find(const Key& key) const {
    const std::size_t slot = slot_of(key);
    if (keys_[slot] == Key{}) return std::nullopt;
    return documents_[slot];
  }
  void add(const Key& key, std::uint32_t document) {
    const std::size_t slot = slot_of(key);
    if (!(keys_[slot] == Key{})) return;
    keys_[slot] = key;
    documents_[slot] = document;
    if (++count_ * 4 > keys_.size() * 3) grow();
  }

 private:
  static std::uint64_t bits(std::uint64_t key) { return key; }
  static std::uint64_t bits(const Hash128& key) { return key.low; }
  std::size_t slot_of(const Key& key) const {
    std::size_t slot = bits(key) & (keys_.size() - 1);
    while (!(keys_[slot] == Key{}) && !(keys_[slot] == key)) slot = (slot + 1) & (keys_.size() - 1);
    return slot;
  }
  void grow() {
    std::vector<Key> keys(keys_.size() * 2);
    std::vector<std::uint32_t> documents(keys.size());
    keys.swap(keys_);
    documents.swap(documents_);
    for (std::size_t i = 0; i < keys.size(); ++i) {
      if (keys[i] == Key{}) continue;
      const std::size_t slot = slot_of(keys[i]);
      keys_[slot] = keys[i];
      documents_[slot] = documents[i];
    }
  }

  std::vector<Key> keys_ = std::vector<Key>(1024);  // the key of all zeros is never one: hashes are mixed
  std::vector<std::uint32_t> documents_ = std::vector<std::uint32_t>(1024);
  std::size_t count_ = 0;
};

struct Measured {
  std::string text;
  std::uint64_t bytes_read = 0;
  double symbols = 0, repetition = 0;
  Hash128 hash;
  MinHash min_hash;
};

void check(const FilterOptions& options) {
  const auto share = [](const char* name, double value) {
    if (!(value >= 0.0 && value <= 1.0)) {
      throw ConfigError(fmt::format("{} is {}, expected a share from 0 to 1", name, value));
    }
  };
  share("max symbols", options.max_symbols);
  share("max repetition", options.max_repetition);
  if (options.min_bytes < 0 || options.max_bytes < 0 || (options.max_bytes > 0 && options.max_bytes < options.min_bytes)) {
    throw ConfigError(fmt::format("documents of {} to {} bytes are asked for; the first must not be above the second",
                                  options.min_bytes, options.max_bytes));
  }
}

// The beginning of a text, cut at a character.
std::string beginning_of(const std::string& text) {
  std::size_t length = std::min(text.size(), kExampleBytes);
  while (length > 0 && length < text.size() && (static_cast<unsigned char>(text[length]) & 0xc0) == 0x80) --length;
  return text.substr(0, length);
}

}  // namespace

bool FilterOptions::any() const {
  return min_bytes > 0 || max_bytes > 0 || max_symbols < 1.0 || max_repetition < 1.0 || drop_duplicates || drop_near_duplicates;
}

nlohmann::json to_json(const FilterOptions& options) {
  return {{"min_bytes", options.min_bytes},
          {"max_bytes", options.max_bytes},
          {"max_symbols", options.max_symbols},
          {"max_repetition", options.max_repetition},
          {"drop_duplicates", options.drop_duplicates},
          {"drop_near_duplicates", options.drop_near_duplicates},
          {"seed", options.seed}};
}

nlohmann::json to_json(const FilterReport& report) {
  nlohmann::json dropped = nlohmann::json::array();
  for (const FilterCount& count : report.dropped) {
    nlohmann::json examples = nlohmann::json::array();
    for (const FilterExample& example : count.examples) {
      examples.push_back({{"document", example.document}, {"value", example.value}, {"beginning", example.beginning}});
    }
    dropped.push_back({{"filter", count.name},
                       {"documents", count.documents},
                       {"text_bytes", count.text_bytes},
                       {"examples", std::move(examples)}});
  }
  return {{"documents", report.documents},
          {"text_bytes", report.text_bytes},
          {"kept_documents", report.kept_documents},
          {"kept_text_bytes", report.kept_text_bytes},
          {"dropped", std::move(dropped)}};
}

struct FilteredDocuments::Impl {
  Impl(std::unique_ptr<DocumentReader> source, const FilterOptions& chosen) : reader(std::move(source)), options(chosen) {
    check(options);
    const auto use = [this](bool used, const char* name) {
      if (!used) return -1;
      report.dropped.push_back({.name = name, .examples = {}});
      return static_cast<int>(report.dropped.size()) - 1;
    };
    too_short = use(options.min_bytes > 0, "too_short");
    too_long = use(options.max_bytes > 0, "too_long");
    symbols = use(options.max_symbols < 1.0, "symbols");
    repetition = use(options.max_repetition < 1.0, "repetition");
    duplicate = use(options.drop_duplicates, "duplicate");
    near_duplicate = use(options.drop_near_duplicates, "near_duplicate");
  }

  // An error of the reader waits until the documents before it are handed on.
  bool read_batch() {
    if (error) std::rethrow_exception(error);
    batch.clear();
    position = 0;
    std::size_t bytes = 0;
    try {
      std::string text;
      while (!at_end && batch.size() < kBatchDocuments && bytes < kBatchBytes) {
        if (!reader->next(text)) {
          at_end = true;
          break;
        }
        bytes += text.size();
        batch.push_back({.text = std::move(text), .bytes_read = reader->bytes_read(), .hash = {}, .min_hash = {}});
      }
    } catch (...) {
      if (batch.empty()) throw;
      error = std::current_exception();
    }
    for_each_index(batch.size(), options.threads, [this](std::size_t i) { measure(batch[i]); });
    return !batch.empty();
  }

  bool wrong_length(const std::string& text) const {
    const auto size = static_cast<std::int64_t>(text.size());
    return size < options.min_bytes || (options.max_bytes > 0 && size > options.max_bytes);
  }

  void measure(Measured& document) const {
    if (wrong_length(document.text)) return;
    if (symbols >= 0) document.symbols = symbol_share(document.text);
    if (repetition >= 0) document.repetition = repetition_share(document.text);
    if (duplicate >= 0) document.hash = hash128(document.text, options.seed);
    if (near_duplicate >= 0) document.min_hash = min_hash(document.text, options.seed);
  }

  bool passes(const Measured& document) {
    const std::uint64_t number = report.documents++;
    report.text_bytes += document.text.size();
    const auto drop = [&](int filter, double value) {
      FilterCount& count = report.dropped[static_cast<std::size_t>(filter)];
      ++count.documents;
      count.text_bytes += document.text.size();
      if (count.examples.size() < kExamples) count.examples.push_back({number, beginning_of(document.text), value});
      return false;
    };
    const auto size = static_cast<double>(document.text.size());
    if (wrong_length(document.text)) {
      return drop(static_cast<std::int64_t>(document.text.size()) < options.min_bytes ? too_short : too_long, size);
    }
    if (document.symbols > options.max_symbols) return drop(symbols, document.symbols);
    if (document.repetition > options.max_repetition) return drop(repetition, document.repetition);
    if (duplicate >= 0) {
      if (const auto first = hashes.find(document.hash)) return drop(duplicate, *first);
    }
    if (near_duplicate >= 0 && document.min_hash.enough) {
      for (const std::uint64_t band : document.min_hash.bands) {
        if (const auto first = bands.find(band)) return drop(near_duplicate, *first);
      }
      for (const std::uint64_t band : document.min_hash.bands) bands.add(band, static_cast<std::uint32_t>(number));
    }
    if (duplicate >= 0) hashes.add(document.hash, static_cast<std::uint32_t>(number));
    ++report.kept_documents;
    report.kept_text_bytes += document.text.size();
    return true;
  }

  std::unique_ptr<DocumentReader> reader;
  FilterOptions options;
  FilterReport report;
  int too_short, too_long, symbols, repetition, duplicate, near_duplicate;  // in report.dropped; -1: not in use
  SeenKeys<Hash128> hashes;
  SeenKeys<std::uint64_t> bands;
  std::vector<Measured> batch;
  std::size_t position = 0;
  std::uint64_t bytes_read = 0;
  bool at_end = false;
  std::exception_ptr error;
};

FilteredDocuments::FilteredDocuments(std::unique_ptr<DocumentReader> reader, const FilterOptions& options)
    : impl_(std::make_unique<Impl>(std::move(reader), options)) {}

FilteredDocuments::~FilteredDocuments() = default;

bool FilteredDocuments::next(std::string& document) {
  for (;;) {
    while (impl_->position < impl_->batch.size()) {
      Measured& candidate = impl_->batch[impl_->position++];
      impl_->bytes_read = candidate.bytes_read;
      if (!impl_->passes(candidate)) continue;
      document = std::move(candidate.text);
      return true;
    }
    if (!impl_->read_batch()) {
      impl_->bytes_read = impl_->reader->bytes_read();
      return false;
    }
  }
}

std::uint64_t FilteredDocuments::bytes_read() const { return impl_->bytes_read; }
std::uint64_t FilteredDocuments::bytes_total() const { return impl_->reader->bytes_total(); }
const FilterReport& FilteredDocuments::report() const { return impl_->report; }

}  // namespace nanochat
