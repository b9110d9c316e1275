// Encoding and decoding the toy corpus, one thread.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "data/toy/toy.h"
#include "tokenizer/byte_bpe.h"
#include "tokenizer/train.h"

namespace nanochat::benchmarks {
namespace {

constexpr std::int64_t kCorpusBytes = 1'000'000;
constexpr std::size_t kPairs = 768;

const std::vector<std::string>& corpus() {
  static const std::vector<std::string> documents = [] {
    std::vector<std::string> result;
    generate_toy_corpus({.bytes = kCorpusBytes}, [&](const std::string& document) { result.push_back(document); });
    return result;
  }();
  return documents;
}

const Tokenizer& sentencepiece() {
  static const std::shared_ptr<const Tokenizer> tokenizer = [] {
    std::size_t next = 0;
    return train_sentencepiece(
        [&](std::string& document) {
          if (next == corpus().size()) return false;
          document = corpus()[next++];
          return true;
        },
        {.vocab_size = 1024});
  }();
  return *tokenizer;
}

// The single bytes and the most frequent pairs of letters: enough merges for a realistic load.
const Tokenizer& byte_level() {
  static const ByteBpeTokenizer tokenizer = [] {
    std::map<std::string, std::int64_t> counts;
    for (const std::string& document : corpus()) {
      for (std::size_t i = 0; i + 1 < document.size(); ++i) ++counts[document.substr(i, 2)];
    }
    std::vector<std::pair<std::int64_t, std::string>> pairs;
    for (const auto& [pair, count] : counts) pairs.emplace_back(-count, pair);
    std::sort(pairs.begin(), pairs.end());
    ByteBpeDefinition definition;
    definition.pattern = "nanochat";
    for (int byte = 0; byte < 256; ++byte) definition.tokens.emplace_back(1, static_cast<char>(byte));
    for (std::size_t i = 0; i < std::min(pairs.size(), kPairs); ++i) definition.tokens.push_back(pairs[i].second);
    definition.merges = merges_from_ranks(definition.tokens);
    return ByteBpeTokenizer(std::move(definition));
  }();
  return tokenizer;
}

std::int64_t corpus_bytes() {
  std::int64_t bytes = 0;
  for (const std::string& document : corpus()) bytes += static_cast<std::int64_t>(document.size());
  return bytes;
}

void encode(benchmark::State& state, const Tokenizer& (*tokenizer)()) {
  const Tokenizer& encoder = tokenizer();
  std::vector<TokenId> ids;
  for (auto _ : state) {
    ids.clear();
    for (const std::string& document : corpus()) encoder.encode(document, ids);
  }
  state.SetBytesProcessed(state.iterations() * corpus_bytes());
  state.counters["bytes/token"] = static_cast<double>(corpus_bytes()) / static_cast<double>(ids.size());
}

void decode(benchmark::State& state, const Tokenizer& (*tokenizer)()) {
  const Tokenizer& decoder = tokenizer();
  std::vector<TokenId> ids;
  for (const std::string& document : corpus()) decoder.encode(document, ids);
  for (auto _ : state) benchmark::DoNotOptimize(decoder.decode(ids));
  state.SetBytesProcessed(state.iterations() * corpus_bytes());
}

BENCHMARK_CAPTURE(encode, sentencepiece, &sentencepiece)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode, byte_level, &byte_level)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(decode, sentencepiece, &sentencepiece)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(decode, byte_level, &byte_level)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace nanochat::benchmarks
