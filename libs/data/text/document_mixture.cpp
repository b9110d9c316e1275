#include "data/text/document_mixture.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "data/rows/byte_source.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;

struct Source {
  std::vector<fs::path> files;
  double weight = 0.0;
  std::unique_ptr<DocumentReader> reader;
  double given = 0.0;  // bytes of text
  bool ended_once = false;
};

class Mixture : public DocumentReader {
 public:
  Mixture(std::vector<std::vector<fs::path>> sources, const DocumentMixtureOptions& mixture, const ReaderOptions& options)
      : options_(options), again_(options), until_all_(mixture.until_all) {
    if (options.bad_rows) again_.bad_rows = std::make_shared<BadRows>(BadRows::kAll);  // they have been counted
    for (std::size_t i = 0; i < sources.size(); ++i) {
      sources_.push_back({std::move(sources[i]), mixture.weights[i], nullptr, 0.0, false});
      sources_.back().reader = open_documents(sources_.back().files, options_);
    }
    // Stored bytes stand for text: exact where all sources are compressed alike.
    double sum = 0.0, end = until_all_ ? 0.0 : std::numeric_limits<double>::infinity();
    for (const Source& source : sources_) {
      sum += source.weight;
      const double scale = static_cast<double>(source.reader->bytes_total()) / source.weight;
      end = until_all_ ? std::max(end, scale) : std::min(end, scale);
    }
    total_ = static_cast<std::uint64_t>(std::llround(end * sum));
  }

  bool next(std::string& document) override {
    for (;;) {
      const auto behind = [](const Source& source) { return source.given / source.weight; };
      Source& source = *std::min_element(sources_.begin(), sources_.end(),
                                         [&](const Source& a, const Source& b) { return behind(a) < behind(b); });
      if (source.reader->next(document)) {
        // An empty document would keep its source the furthest behind for ever; readers give none.
        source.given += static_cast<double>(document.size());
        return true;
      }
      source.ended_once = true;
      const auto has_ended = [](const Source& each) { return each.ended_once; };
      if (!until_all_ || std::all_of(sources_.begin(), sources_.end(), has_ended)) return false;
      read_before_ += source.reader->bytes_read();
      source.reader = open_documents(source.files, again_);
    }
  }

  std::uint64_t bytes_read() const override {
    std::uint64_t read = read_before_;
    for (const Source& source : sources_) read += source.reader->bytes_read();
    return std::min(read, total_);
  }
  std::uint64_t bytes_total() const override { return total_; }

 private:
  ReaderOptions options_, again_;  // again_: of a source that begins anew
  bool until_all_;
  std::vector<Source> sources_;
  std::uint64_t read_before_ = 0;  // by readers that have ended and began anew
  std::uint64_t total_ = 0;
};

}  // namespace

void check_weights(const std::vector<double>& weights, std::size_t sources) {
  if (weights.size() != sources) {
    throw ConfigError(fmt::format("{} weights for {} sources; give one for each path", weights.size(), sources));
  }
  for (const double weight : weights) {
    if (!std::isfinite(weight) || weight <= 0) {
      throw ConfigError(fmt::format("a weight of {}, expected a number above 0", weight));
    }
  }
}

std::unique_ptr<DocumentReader> open_document_mixture(std::vector<std::vector<fs::path>> sources,
                                                      const DocumentMixtureOptions& mixture, const ReaderOptions& options) {
  check_weights(mixture.weights, sources.size());
  if (mixture.until_all) {
    for (auto& files : sources) {
      for (fs::path& file : files) file = reopenable(file);
    }
  }
  return std::make_unique<Mixture>(std::move(sources), mixture, options);
}

}  // namespace nanochat
