#pragma once
// The documents of a split as token ids, epoch after epoch: what the packings of loader.cpp draw from. For one thread.

#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "data/batches/loader.h"
#include "data/shards/shard.h"
#include "data/shards/tokenize_pipeline.h"

namespace nanochat {

class TokenSource {
 public:
  virtual ~TokenSource() = default;
  // Continues at document `document` (from 0) of `epoch`. Throws DataError when it has fewer.
  virtual void seek(std::int64_t epoch, std::uint64_t document) = 0;
  // Replaces `tokens` by the next document, without BOS. False at the end of the epoch or when `stop` is requested.
  virtual bool next(std::vector<std::int32_t>& tokens, const std::stop_token& stop) = 0;
  // The documents of `epoch` with these ascending numbers; then next() continues anywhere. Fewer if `stop` is requested.
  // Throws DataError if there are fewer in the epoch.
  virtual std::vector<std::vector<std::int32_t>> documents(std::int64_t epoch, const std::vector<std::uint64_t>& numbers,
                                                           const std::stop_token& stop);
};

// A pseudo-random order of [0, n) in constant memory: a Feistel network over the smallest even number of bits
// that holds n, followed along its cycles until the result is below n (Black & Rogaway 2002). Thread-safe.
class Permutation {
 public:
  Permutation(std::uint64_t n, std::uint64_t seed);
  std::uint64_t operator()(std::uint64_t index) const;  // index < n

 private:
  static constexpr int kRounds = 6;
  std::uint64_t n_;
  int half_bits_ = 1;
  std::uint64_t keys_[kRounds];
};

class ShardSource : public TokenSource {
 public:
  ShardSource(const std::vector<std::string>& paths, const std::string& tokenizer_fingerprint, const LoaderOptions& options);
  void seek(std::int64_t epoch, std::uint64_t document) override;
  bool next(std::vector<std::int32_t>& tokens, const std::stop_token& stop) override;
  // Reads these documents alone.
  std::vector<std::vector<std::int32_t>> documents(std::int64_t epoch, const std::vector<std::uint64_t>& numbers,
                                                   const std::stop_token& stop) override;

 private:
  LoaderOptions options_;
  std::vector<ShardReader> shards_;
  std::vector<std::uint64_t> ends_;  // of each shard, in documents of the split
  std::unique_ptr<Permutation> order_;
  std::uint64_t next_ = 0;
};

class TextSource : public TokenSource {
 public:
  TextSource(const std::vector<std::string>& paths, std::shared_ptr<const Tokenizer> tokenizer, std::int64_t validation_every,
             const LoaderOptions& options, const ReaderOptions& reader);
  void seek(std::int64_t epoch, std::uint64_t document) override;
  bool next(std::vector<std::int32_t>& tokens, const std::stop_token& stop) override;

 private:
  std::vector<std::filesystem::path> files_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::int64_t validation_every_;
  LoaderOptions options_;
  ReaderOptions reader_;
  std::unique_ptr<TokenizePipeline> pipeline_;
};

}  // namespace nanochat
