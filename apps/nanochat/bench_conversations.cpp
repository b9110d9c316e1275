#include "bench_conversations.h"

#include <nlohmann/json.hpp>

#include "core/elapsed.h"
#include "data/batches/conversation_loader.h"
#include "tasks/task_mixture.h"
#include "tokenizer/special_tokens.h"
#include "tokenizer/tokenizer.h"
#include "training/finetune/conversation_data.h"

namespace nanochat::cli {

struct BenchConversations::Impl {
  std::shared_ptr<const RenderedConversations> rendered;
  ConversationLoaderOptions options;
  std::unique_ptr<Loader> loader;
};

BenchConversations::BenchConversations(const std::string& mixture, const Tokenizer& tokenizer, std::int64_t rows,
                                       std::int64_t sequence_len)
    : impl_(std::make_unique<Impl>()) {
  const auto rate_since = [](SteadyClock::time_point start, std::size_t count) {
    return static_cast<double>(count) / seconds_since(start);
  };
  const std::shared_ptr<const TaskMixture> tasks = mixture_of(mixture, "--mixture");
  auto start = SteadyClock::now();
  impl_->rendered = std::make_shared<RenderedConversations>(render_conversations(
      tokenizer, tasks->size(), [&](std::int64_t i) { return tasks->example(i).conversation; }, sequence_len + 1));
  rendered_per_second_ = rate_since(start, impl_->rendered->size());
  impl_->options = {
      .rows = rows, .sequence_len = sequence_len, .padding_id = tokenizer.require_special(kAssistantEnd), .loop = false};
  start = SteadyClock::now();
  const auto epoch = make_conversation_loader(impl_->rendered, impl_->options, nullptr);
  for (TokenBatch batch; epoch->next(batch);) {
  }
  packed_per_second_ = rate_since(start, impl_->rendered->size());
  impl_->options.loop = true;
  impl_->loader = make_conversation_loader(impl_->rendered, impl_->options, nullptr);
}

BenchConversations::~BenchConversations() = default;

TokenBatch BenchConversations::next() {
  TokenBatch batch;
  impl_->loader->next(batch);
  return batch;
}

std::int64_t BenchConversations::conversations() const { return static_cast<std::int64_t>(impl_->rendered->size()); }

double BenchConversations::tokens_each() const {
  return static_cast<double>(impl_->rendered->tokens()) / static_cast<double>(impl_->rendered->size());
}

double BenchConversations::loaded_per_second() const { return 1.0 / (1.0 / rendered_per_second_ + 1.0 / packed_per_second_); }

double BenchConversations::conversations_of_a_row() const {
  return static_cast<double>(conversations()) / static_cast<double>(rows_of_epoch(*impl_->rendered, impl_->options));
}

}  // namespace nanochat::cli
