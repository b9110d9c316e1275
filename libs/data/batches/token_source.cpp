#include "data/batches/token_source.h"

#include <algorithm>
#include <bit>
#include <utility>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/random.h"
#include "data/rows/byte_source.h"
#include "data/rows/paths.h"
#include "data/text/documents.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {
namespace {

std::string_view split_name(Split split) { return split == Split::kTrain ? "training" : "validation"; }

std::uint64_t mix(std::uint64_t value) {  // the finalizer of SplitMix64
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31);
}

[[noreturn]] void fail_beyond(std::uint64_t document) {
  throw DataError(fmt::format(
      "the loader's position, document {}, is beyond the end of the text; it is not the one it was taken from", document));
}

}  // namespace

std::vector<std::vector<std::int32_t>> TokenSource::documents(std::int64_t epoch, const std::vector<std::uint64_t>& numbers,
                                                              const std::stop_token& stop) {
  std::vector<std::vector<std::int32_t>> found;
  if (numbers.empty()) return found;
  seek(epoch, numbers.front());
  std::vector<std::int32_t> tokens;
  for (std::uint64_t document = numbers.front(); found.size() < numbers.size(); ++document) {
    if (!next(tokens, stop)) {
      if (stop.stop_requested()) return found;
      fail_beyond(numbers[found.size()]);
    }
    if (document == numbers[found.size()]) found.push_back(tokens);
  }
  return found;
}

Permutation::Permutation(std::uint64_t n, std::uint64_t seed) : n_(n) {
  half_bits_ = std::max(1, (static_cast<int>(std::bit_width(n > 0 ? n - 1 : 0)) + 1) / 2);
  Rng rng(seed);
  for (std::uint64_t& key : keys_) key = rng.next();
}

std::uint64_t Permutation::operator()(std::uint64_t index) const {
  const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
  do {
    std::uint64_t left = index >> half_bits_;
    std::uint64_t right = index & mask;
    for (const std::uint64_t key : keys_) {
      left ^= mix(right ^ key) & mask;
      std::swap(left, right);
    }
    index = left << half_bits_ | right;
  } while (index >= n_);
  return index;
}

ShardSource::ShardSource(const std::vector<std::string>& paths, const std::string& tokenizer_fingerprint,
                         const LoaderOptions& options)
    : options_(options) {
  std::uint64_t total = 0;
  for (const std::filesystem::path& file : expand_paths(paths, {FileFormat::kShard}, "token shard")) {
    const bool validation = file.filename().string().starts_with("validation-");
    if (validation != (options.split == Split::kValidation)) continue;
    ShardReader shard(file);
    if (!tokenizer_fingerprint.empty() && shard.info().tokenizer_fingerprint != tokenizer_fingerprint) {
      throw DataError(
          fmt::format("{}: was written with another tokenizer (fingerprint {:.12}..., this one's is {:.12}...); prepare "
                      "the data again with this tokenizer",
                      file.string(), shard.info().tokenizer_fingerprint, tokenizer_fingerprint));
    }
    total += shard.info().documents;
    shards_.push_back(std::move(shard));
    ends_.push_back(total);
  }
  if (total == 0) {
    throw DataError(fmt::format("{}: there is no {} document in {} token shards", paths.front(), split_name(options.split),
                                shards_.size()));
  }
}

void ShardSource::seek(std::int64_t epoch, std::uint64_t document) {
  if (document > ends_.back()) {
    throw DataError(
        fmt::format("the loader's position, document {}, is beyond the {} documents of the shards; they are "
                    "not the ones it was taken from",
                    document, ends_.back()));
  }
  next_ = document;
  order_.reset();
  if (options_.shuffle && options_.packing != Packing::kStream) {
    order_ = std::make_unique<Permutation>(ends_.back(),
                                           derive_seed(options_.seed, fmt::format("documents of epoch {}", epoch)));
  }
}

bool ShardSource::next(std::vector<std::int32_t>& tokens, const std::stop_token& stop) {
  if (next_ >= ends_.back() || stop.stop_requested()) return false;
  std::uint64_t index = next_++;
  if (order_) index = (*order_)(index);
  const auto shard = static_cast<std::size_t>(std::upper_bound(ends_.begin(), ends_.end(), index) - ends_.begin());
  tokens.clear();
  shards_[shard].document(shard == 0 ? index : index - ends_[shard - 1], tokens);
  // With every document come megabytes around it that the system has cached; they would count as this process's memory.
  shards_[shard].drop_resident();
  return true;
}

std::vector<std::vector<std::int32_t>> ShardSource::documents(std::int64_t epoch, const std::vector<std::uint64_t>& numbers,
                                                              const std::stop_token& stop) {
  std::vector<std::vector<std::int32_t>> found(numbers.size());
  if (!numbers.empty()) seek(epoch, numbers.front());
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    next_ = numbers[i];
    if (next(found[i], stop)) continue;
    if (!stop.stop_requested()) fail_beyond(numbers[i]);
    found.resize(i);
    break;
  }
  return found;
}

TextSource::TextSource(const std::vector<std::string>& paths, std::shared_ptr<const Tokenizer> tokenizer,
                       std::int64_t validation_every, const LoaderOptions& options, const ReaderOptions& reader)
    : files_(expand_paths(paths, reader)), tokenizer_(std::move(tokenizer)), validation_every_(validation_every),
      options_(options), reader_(reader) {
  for (std::filesystem::path& file : files_) file = reopenable(file);  // each split and epoch reads them again
}

void TextSource::seek(std::int64_t, std::uint64_t document) {
  pipeline_.reset();
  const auto select = [every = validation_every_, validation = options_.split == Split::kValidation, first = document,
                       of_split = std::uint64_t{0}](std::uint64_t index) mutable {
    return is_validation_document(index, every) == validation && of_split++ >= first;
  };
  pipeline_ = std::make_unique<TokenizePipeline>(open_documents(files_, reader_), *tokenizer_, options_.workers, select);
}

bool TextSource::next(std::vector<std::int32_t>& tokens, const std::stop_token& stop) {
  TokenizedDocument document;
  if (!pipeline_->next(document, stop)) return false;
  tokens = std::move(document.tokens);
  return true;
}

}  // namespace nanochat
