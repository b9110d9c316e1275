#include "data/shards/tokenize_pipeline.h"

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include <zlib.h>

#include "core/thread_pool.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {
namespace {

// Large enough that locks cost nothing, small enough that a few fit in a cache and spread over the workers.
constexpr std::size_t kChunkBytes = 1 << 17;
constexpr std::size_t kChunkDocuments = 64;

struct Chunk {
  std::vector<std::string> texts;
  std::vector<TokenizedDocument> documents;
  std::exception_ptr error;  // thrown after the documents
  bool last = false;
  bool done = false;
};

}  // namespace

struct TokenizePipeline::Impl {
  Impl(std::unique_ptr<DocumentReader> source, const Tokenizer& chosen, int workers,
       std::function<bool(std::uint64_t)> selection)
      : reader(std::move(source)), tokenizer(chosen), select(std::move(selection)) {
    const int count = workers > 0 ? workers : available_threads();
    limit = 2 * static_cast<std::size_t>(count) + 2;
    threads.emplace_back([this](const std::stop_token& stop) { read_all(stop); });
    for (int i = 0; i < count; ++i) threads.emplace_back([this](const std::stop_token& stop) { tokenize_all(stop); });
  }

  ~Impl() {
    for (std::jthread& thread : threads) thread.request_stop();
  }

  void read_all(const std::stop_token& stop) {
    bool last = false;
    while (!last && !stop.stop_requested()) {
      auto chunk = std::make_shared<Chunk>();
      read_chunk(*chunk, stop);
      last = chunk->last;
      std::unique_lock lock(mutex);
      if (!room.wait(lock, stop, [this] { return in_order.size() < limit; })) return;
      in_order.push_back(chunk);
      waiting.push_back(std::move(chunk));
      work.notify_one();
    }
  }

  void read_chunk(Chunk& chunk, const std::stop_token& stop) {
    std::size_t bytes = 0;
    try {
      std::string text;
      while (chunk.texts.size() < kChunkDocuments && bytes < kChunkBytes) {
        if (stop.stop_requested() || !reader->next(text)) {
          chunk.last = true;
          return;
        }
        const std::uint64_t index = next_index++;
        if (!select(index)) continue;
        bytes += text.size();
        chunk.documents.push_back({{}, index, text.size(), 0, reader->bytes_read()});
        chunk.texts.push_back(std::move(text));
      }
    } catch (...) {
      chunk.error = std::current_exception();
      chunk.last = true;
    }
  }

  void tokenize_all(const std::stop_token& stop) {
    for (;;) {
      std::shared_ptr<Chunk> chunk;
      {
        std::unique_lock lock(mutex);
        if (!work.wait(lock, stop, [this] { return !waiting.empty(); })) return;
        chunk = std::move(waiting.front());
        waiting.pop_front();
      }
      tokenize(*chunk, stop);
      const std::lock_guard lock(mutex);
      chunk->done = true;
      done.notify_all();
    }
  }

  void tokenize(Chunk& chunk, const std::stop_token& stop) const {
    for (std::size_t i = 0; i < chunk.texts.size() && !stop.stop_requested(); ++i) {
      try {
        chunk.documents[i].text_checksum = checksum_of(chunk.texts[i]);
        tokenizer.encode(chunk.texts[i], chunk.documents[i].tokens);
      } catch (...) {
        chunk.documents.resize(i);
        chunk.error = std::current_exception();
        chunk.last = true;
        break;
      }
    }
    chunk.texts = {};
  }

  // The chunk whose documents come next, or null at the end or on a stop.
  bool advance(const std::stop_token& stop) {
    if (current && current->error) std::rethrow_exception(current->error);
    if (current && current->last) return false;
    std::unique_lock lock(mutex);
    if (!done.wait(lock, stop, [this] { return !in_order.empty() && in_order.front()->done; })) return false;
    current = std::move(in_order.front());
    in_order.pop_front();
    position = 0;
    room.notify_one();
    return true;
  }

  std::unique_ptr<DocumentReader> reader;
  const Tokenizer& tokenizer;
  std::function<bool(std::uint64_t)> select;
  std::size_t limit = 0;
  std::uint64_t next_index = 0;  // reading thread only

  std::mutex mutex;
  std::condition_variable_any room, work, done;
  std::deque<std::shared_ptr<Chunk>> in_order, waiting;

  std::shared_ptr<Chunk> current;  // consumer only
  std::size_t position = 0;

  std::vector<std::jthread> threads;  // last: joined before what they use is destroyed
};

std::uint32_t checksum_of(std::string_view text) {
  return static_cast<std::uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(text.data()), text.size()));
}

TokenizePipeline::TokenizePipeline(std::unique_ptr<DocumentReader> reader, const Tokenizer& tokenizer, int workers,
                                   std::function<bool(std::uint64_t)> select)
    : impl_(std::make_unique<Impl>(std::move(reader), tokenizer, workers, std::move(select))) {}

TokenizePipeline::~TokenizePipeline() = default;

bool TokenizePipeline::next(TokenizedDocument& document, const std::stop_token& stop) {
  while (!impl_->current || impl_->position == impl_->current->documents.size()) {
    if (!impl_->advance(stop)) return false;
  }
  document = std::move(impl_->current->documents[impl_->position++]);
  return true;
}

}  // namespace nanochat
