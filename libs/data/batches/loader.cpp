#include "data/batches/loader.h"

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "data/batches/batch_maker.h"
#include "data/batches/token_source.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {
namespace {

struct Made {
  TokenBatch batch;
  LoaderPosition position;
  bool end = false;
  std::exception_ptr error;
};

class BatchLoader : public Loader {
 public:
  BatchLoader(std::unique_ptr<BatchMaker> maker, const LoaderOptions& options, const LoaderPosition& position)
      : options_(options), position_(position), maker_(std::move(maker)) {
    if (options_.prefetch > 0) thread_ = std::jthread([this](const std::stop_token& stop) { prefetch(stop); });
  }

  ~BatchLoader() override {
    thread_.request_stop();  // also wakes it; std::jthread joins
  }

  bool next(TokenBatch& batch) override {
    if (ended_) return false;
    Made made;
    if (thread_.joinable()) {
      made = take();
    } else {
      make(made, {});
    }
    if (made.error) {
      ended_ = true;  // a loader that failed has no next batch
      std::rethrow_exception(made.error);
    }
    if (made.end) {
      ended_ = true;
      return false;
    }
    position_ = made.position;
    batch = std::move(made.batch);
    return true;
  }

  nlohmann::json position() const override { return to_json(position_, options_); }
  std::int64_t epoch() const override { return position_.last_epoch; }

 private:
  void make(Made& made, const std::stop_token& stop) {
    try {
      for (int rank = 0; rank < options_.world_size; ++rank) {
        TokenBatch of_another;
        const bool mine = rank == options_.rank;
        if (maker_->make(mine ? made.batch : of_another, stop)) continue;
        made.end = rank <= options_.rank;  // of batches for the ranks behind there may be none
        break;
      }
      made.position = maker_->position();
    } catch (...) {
      made.error = std::current_exception();
    }
  }

  void prefetch(const std::stop_token& stop) {
    bool more = true;
    while (more && !stop.stop_requested()) {
      Made made;
      make(made, stop);
      more = !made.end && !made.error;
      std::unique_lock lock(mutex_);
      const auto room = [this] { return queue_.size() < static_cast<std::size_t>(options_.prefetch); };
      if (!changed_.wait(lock, stop, room)) return;
      queue_.push_back(std::move(made));
      changed_.notify_all();
    }
  }

  Made take() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !queue_.empty(); });
    Made made = std::move(queue_.front());
    queue_.pop_front();
    changed_.notify_all();
    return made;
  }

  LoaderOptions options_;
  LoaderPosition position_;
  std::unique_ptr<BatchMaker> maker_;  // the prefetch thread's when there is one
  bool ended_ = false;

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Made> queue_;
  std::jthread thread_;  // last: stopped before what it uses is destroyed
};

void check(const LoaderOptions& options) {
  const auto fail = [](std::string_view what, std::int64_t found, std::string_view right) {
    throw ConfigError(fmt::format("loader: {} is {}, expected {}", what, found, right));
  };
  constexpr std::int64_t kMaxTokens = std::int64_t{1} << 31;
  if (options.rows < 1) fail("the number of rows", options.rows, "1 or more");
  if (options.sequence_len < 1) fail("the sequence length", options.sequence_len, "1 or more");
  if (options.rows > kMaxTokens / options.sequence_len) {
    fail("the number of rows", options.rows, fmt::format("at most {}", kMaxTokens / options.sequence_len));
  }
  if (options.world_size < 1) fail("the number of ranks", options.world_size, "1 or more");
  if (options.rank < 0 || options.rank >= options.world_size) {
    fail("the rank", options.rank, fmt::format("0 to {}", options.world_size - 1));
  }
  if (options.prefetch < 0) fail("prefetch", options.prefetch, "0 or more");
}

std::unique_ptr<Loader> make_loader(std::unique_ptr<TokenSource> source, std::int32_t bos_id, const LoaderOptions& options,
                                    const nlohmann::json& json) {
  const LoaderPosition position = parse_position(json, options);
  return std::make_unique<BatchLoader>(make_batch_maker(std::move(source), bos_id, options, position), options, position);
}

}  // namespace

std::unique_ptr<Loader> make_shard_loader(const std::vector<std::string>& paths, std::int32_t bos_id,
                                          const std::string& tokenizer_fingerprint, const LoaderOptions& options,
                                          const nlohmann::json& position) {
  check(options);
  return make_loader(std::make_unique<ShardSource>(paths, tokenizer_fingerprint, options), bos_id, options, position);
}

std::unique_ptr<Loader> make_text_loader(const std::vector<std::string>& paths, std::shared_ptr<const Tokenizer> tokenizer,
                                         std::int64_t validation_every, const LoaderOptions& options,
                                         const nlohmann::json& position, const ReaderOptions& reader) {
  check(options);
  const std::int32_t bos_id = tokenizer->bos_id();
  return make_loader(std::make_unique<TextSource>(paths, std::move(tokenizer), validation_every, options, reader), bos_id,
                     options, position);
}

}  // namespace nanochat
