#include <algorithm>
#include <utility>
#include <vector>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "tokenizer/byte_bpe.h"
#include "tokenizer/internal/bpe_merges.h"
#include "tokenizer/internal/training_text.h"
#include "tokenizer/special_tokens.h"
#include "tokenizer/train.h"
#include "tokenizer/word_counts.h"

namespace nanochat {
namespace {

constexpr std::int64_t kBytes = 256;
constexpr std::int64_t kBatchBytes = 32 << 20;  // of text between two summings-up of counts

void count_pieces(const NextDocument& next, const TokenizerTrainOptions& options, WordCounts& counts) {
  std::vector<std::string> batch;
  std::int64_t batch_bytes = 0, taken = 0;
  const std::int64_t most = options.max_bytes > 0 ? options.max_bytes : kByteBpeBytes;
  const auto flush = [&] {
    counts.add(batch);
    batch.clear();
    batch_bytes = 0;
  };
  for (std::string document; taken < most && next(document); document.clear()) {
    make_trainable(document, std::min(options.max_document_bytes, most - taken));
    taken += static_cast<std::int64_t>(document.size());
    batch_bytes += static_cast<std::int64_t>(document.size());
    if (!document.empty()) batch.push_back(std::move(document));
    if (batch_bytes >= kBatchBytes) flush();
  }
  if (taken == 0) throw TokenizerError("the corpus is empty; a tokenizer needs text to be trained on");
  flush();
}

}  // namespace

std::shared_ptr<const Tokenizer> train_byte_bpe(const NextDocument& next, const TokenizerTrainOptions& options,
                                                const std::function<void(std::int64_t)>& progress) {
  constexpr std::int64_t kMostTokens = std::int64_t{1} << 17;
  constexpr auto kSpecials = static_cast<std::int64_t>(kChatSpecialTokens.size());
  if (options.vocab_size < kBytes + kSpecials || options.vocab_size > kMostTokens) {
    throw ConfigError(fmt::format("vocab_size is {}, expected {} (256 bytes and nine special tokens) to {}", options.vocab_size,
                                  kBytes + kSpecials, kMostTokens));
  }
  if (options.max_bytes < 0 || options.max_document_bytes < 4 || options.max_memory_bytes < 1) {
    throw ConfigError(
        fmt::format("max_bytes is {}, max_document_bytes is {} and max_memory_bytes is {}, expected at "
                    "least 0, 4 and 1",
                    options.max_bytes, options.max_document_bytes, options.max_memory_bytes));
  }
  ByteBpeDefinition definition;
  definition.pattern = resolve_pattern(options.pattern);
  const Pretokenizer pretokenizer(definition.pattern);
  WordCounts counts(pretokenizer, static_cast<std::size_t>(options.max_memory_bytes), options.threads);
  count_pieces(next, options, counts);

  const std::int64_t wanted = options.vocab_size - kSpecials - kBytes;
  const auto merges = learn_merges(counts, wanted, progress);
  if (static_cast<std::int64_t>(merges.size()) < wanted) {
    throw TokenizerError(fmt::format("vocab_size {} is too large for this corpus, which supports at most {}",
                                     options.vocab_size, kBytes + kSpecials + static_cast<std::int64_t>(merges.size())));
  }
  for (std::int64_t byte = 0; byte < kBytes; ++byte) definition.tokens.emplace_back(1, static_cast<char>(byte));
  for (const auto& [left, right] : merges) {
    definition.tokens.push_back(definition.tokens[static_cast<std::size_t>(left)] +
                                definition.tokens[static_cast<std::size_t>(right)]);
  }
  definition.specials.assign(kChatSpecialTokens.begin(), kChatSpecialTokens.end());
  // As rustbpe's ranks are used: what merges is told from the tokens, not from how they were found.
  definition.merges = merges_from_ranks(definition.tokens);
  return std::make_shared<const ByteBpeTokenizer>(std::move(definition));
}

}  // namespace nanochat
