#include "data/batches/conversation_loader.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <set>
#include <tuple>

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/random.h"
#include "core/thread_pool.h"
#include "data/batches/buffered_rows.h"

namespace nanochat {
namespace {

// How a token is stored: as its id where it is supervised, else as ~id, which is negative; with a further bit where its
// message is not learned at all.
constexpr std::int32_t kExcluded = std::int32_t{1} << 30;

std::int32_t stored(TokenId id, bool supervised, bool excluded) {
  if (supervised) return id;
  return ~(excluded ? id | kExcluded : id);
}

// Input positions that a conversation takes: all tokens but the last, which is a target alone.
std::size_t positions_of(std::span<const std::int32_t> conversation, std::size_t sequence_len) {
  return std::min(conversation.size() - 1, sequence_len);
}

[[noreturn]] void fail_empty() { throw DataError("there is no conversation to train on"); }

std::vector<std::size_t> order_of_epoch(const RenderedConversations& conversations, const ConversationLoaderOptions& options,
                                        std::int64_t epoch) {
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < conversations.size(); ++i) {
    if (conversations[i].size() > 1) order.push_back(i);
  }
  if (options.shuffle) {
    Rng rng(derive_seed(options.seed, fmt::format("conversations of epoch {}", epoch)));
    rng.shuffle(order);
  }
  return order;
}

using Row = std::vector<std::size_t>;  // conversations in it

std::unique_ptr<BufferedRows> buffered_rows(const RenderedConversations& conversations,
                                            const ConversationLoaderOptions& options,
                                            const BufferedRowsPosition& position = {}) {
  const auto room = static_cast<std::size_t>(options.sequence_len) + 1;
  const auto length = [&conversations, room](std::size_t i) { return std::min(conversations[i].size(), room); };
  const auto order = [&conversations, options](std::int64_t epoch) {
    std::vector<std::size_t> found = order_of_epoch(conversations, options, epoch);
    if (found.empty()) fail_empty();
    return found;
  };
  return std::make_unique<BufferedRows>(
      BufferedRows::Options{.room = room, .buffer = options.buffer_conversations, .loop = options.loop}, length, order,
      position);
}

std::vector<Row> rows_of(const RenderedConversations& conversations, const ConversationLoaderOptions& options,
                         std::int64_t epoch) {
  std::vector<std::size_t> order = order_of_epoch(conversations, options, epoch);
  if (options.packing == ConversationPacking::kPadded) {
    std::vector<Row> rows;
    for (const std::size_t i : order) rows.push_back({i});
    return rows;
  }
  if (options.packing == ConversationPacking::kBestFitPad) {
    ConversationLoaderOptions one_epoch = options;
    one_epoch.loop = false;
    std::vector<Row> rows;
    BufferedRowsPosition begin;
    begin.epoch = epoch;
    const auto buffered = buffered_rows(conversations, one_epoch, begin);
    for (Row row; buffered->next(row);) rows.push_back(row);
    return rows;
  }
  const auto room = static_cast<std::size_t>(options.sequence_len);
  std::vector<Row> rows = best_fit_rows([&](std::size_t i) { return positions_of(conversations[i], room); }, std::move(order),
                                        room);
  if (options.shuffle) {
    Rng rng(derive_seed(options.seed, fmt::format("rows of epoch {}", epoch)));
    rng.shuffle(rows);
  }
  return rows;
}

std::string_view name_of(ConversationPacking packing) {
  switch (packing) {
    case ConversationPacking::kStream: return "stream";
    case ConversationPacking::kBestFit: return "best_fit";
    case ConversationPacking::kPadded: return "padded";
    case ConversationPacking::kBestFitPad: break;
  }
  return "best_fit_pad";
}

class ConversationLoader : public Loader {
 public:
  ConversationLoader(std::shared_ptr<const RenderedConversations> conversations, const ConversationLoaderOptions& options,
                     const nlohmann::json& position)
      : conversations_(std::move(conversations)), options_(options) {
    if (!position.is_null()) restore(position);
    begin_epoch();
    if (place_ > places()) {
      throw DataError(
          fmt::format("the loader's position, {} {} of epoch {}, is beyond its {}; the conversations are not the ones "
                      "it was taken from",
                      unit(), place_, epoch_, places()));
    }
    if (options_.packing == ConversationPacking::kBestFitPad) {
      std::vector<std::size_t> waiting;
      if (!position.is_null()) waiting = waiting_of(position);
      buffered_ = buffered_rows(*conversations_, options_, {epoch_, place_, std::move(waiting)});
    }
  }

  bool next(TokenBatch& batch) override {
    for (int rank = 0; rank < options_.world_size; ++rank) {
      TokenBatch of_another;
      const bool mine = rank == options_.rank;
      if (!next_of_all(mine ? batch : of_another)) return rank > options_.rank;
    }
    return true;
  }

  nlohmann::json position() const override {
    nlohmann::json json = {{"packing", name_of(options_.packing)},
                           {"epoch", epoch_},
                           {unit(), place_},
                           {"token", token_},
                           {"last_epoch", last_epoch_},
                           {"rows", options_.rows},
                           {"sequence_len", options_.sequence_len},
                           {"seed", options_.seed},
                           {"conversations", conversations_->size()},
                           {"tokens", conversations_->tokens()}};
    if (buffered_) json["waiting"] = buffered_->position().waiting;
    return json;
  }
  std::int64_t epoch() const override { return last_epoch_; }

 private:
  // Whether a position counts conversations; otherwise it counts rows.
  bool by_conversation() const {
    return options_.packing == ConversationPacking::kStream || options_.packing == ConversationPacking::kBestFitPad;
  }
  const char* unit() const { return by_conversation() ? "conversation" : "row"; }
  std::size_t places() const { return by_conversation() ? order_.size() : rows_.size(); }

  bool next_of_all(TokenBatch& batch) {
    batch = TokenBatch();
    batch.rows = options_.rows;
    batch.sequence_len = options_.sequence_len;
    return options_.packing == ConversationPacking::kStream ? next_stream(batch) : next_rows(batch);
  }

  void begin_epoch() {
    if (by_conversation()) {
      order_ = order_of_epoch(*conversations_, options_, epoch_);
    } else {
      rows_ = rows_of(*conversations_, options_, epoch_);
    }
    if (places() == 0) fail_empty();
  }
  // True where the next epoch has begun.
  bool next_epoch() {
    if (!options_.loop) return false;
    ++epoch_;
    place_ = token_ = 0;
    begin_epoch();
    return true;
  }

  bool next_stream(TokenBatch& batch) {
    const auto needed = static_cast<std::size_t>(batch.rows * batch.sequence_len + 1);
    if (!options_.loop && tokens_left() < needed) return false;
    std::vector<std::int32_t>& ids = batch.inputs;
    std::vector<std::int32_t>& targets = batch.targets;
    ids.reserve(needed);
    targets.reserve(needed);
    while (ids.size() < needed) {
      if (place_ == order_.size()) next_epoch();
      const std::span<const std::int32_t> conversation = (*conversations_)[order_[place_]];
      const std::size_t take = std::min(needed - ids.size(), conversation.size() - token_);
      for (const std::int32_t token : conversation.subspan(token_, take)) {
        ids.push_back(RenderedConversations::id_of(token));
        targets.push_back(RenderedConversations::target_of(token, options_.packing));
      }
      token_ += take;
      last_epoch_ = epoch_;
      if (token_ == conversation.size()) {
        ++place_;
        token_ = 0;
      }
    }
    ids.pop_back();
    targets.erase(targets.begin());
    return true;
  }

  std::size_t tokens_left() const {
    std::size_t left = 0;
    for (std::size_t i = place_; i < order_.size(); ++i) left += (*conversations_)[order_[i]].size();
    return left - token_;
  }

  bool take_row(Row& row) {
    if (buffered_) {
      if (!buffered_->next(row)) return false;
      epoch_ = buffered_->position().epoch;
      place_ = buffered_->position().place;
    } else {
      if (place_ == rows_.size() && !next_epoch()) return false;
      row = rows_[place_++];
    }
    last_epoch_ = epoch_;
    return true;
  }

  bool next_rows(TokenBatch& batch) {
    std::vector<Row> taken;
    for (Row row; static_cast<std::int64_t>(taken.size()) < batch.rows && take_row(row);) taken.push_back(row);
    if (taken.empty()) return false;
    taken.resize(static_cast<std::size_t>(batch.rows));
    if (buffered_) {
      for (const Row& row : taken) add_joined_row(row, batch);
      return true;
    }
    const bool padded = options_.packing == ConversationPacking::kPadded;
    if (padded) {
      batch.sequence_len = 1;
      for (const Row& row : taken) {
        for (const std::size_t i : row)
          batch.sequence_len = std::max(batch.sequence_len, static_cast<std::int64_t>(positions(i)));
      }
    }
    for (const Row& row : taken) add_row(row, batch);
    if (padded) {
      batch.documents.clear();  // what stands before a position is its own conversation
    } else {
      batch.documents.push_back(static_cast<std::int32_t>(batch.inputs.size()));
    }
    return true;
  }

  std::size_t positions(std::size_t index) const {
    return positions_of((*conversations_)[index], static_cast<std::size_t>(options_.sequence_len));
  }

  void add_row(const Row& row, TokenBatch& batch) const {
    const std::size_t end = batch.inputs.size() + static_cast<std::size_t>(batch.sequence_len);
    for (const std::size_t index : row) {
      const std::span<const std::int32_t> conversation = (*conversations_)[index];
      batch.documents.push_back(static_cast<std::int32_t>(batch.inputs.size()));
      for (std::size_t i = 0; i < positions(index); ++i) {
        batch.inputs.push_back(RenderedConversations::id_of(conversation[i]));
        batch.targets.push_back(RenderedConversations::target_of(conversation[i + 1], options_.packing));
      }
    }
    if (batch.inputs.size() < end) batch.documents.push_back(static_cast<std::int32_t>(batch.inputs.size()));
    batch.inputs.resize(end, options_.padding_id);
    batch.targets.resize(end, -1);
  }

  // T + 1 tokens, of which the first T are inputs and the last T targets.
  void add_joined_row(const Row& row, TokenBatch& batch) const {
    const auto size = static_cast<std::size_t>(batch.sequence_len) + 1;
    std::vector<std::int32_t> tokens;
    for (const std::size_t index : row) {
      const std::span<const std::int32_t> conversation = (*conversations_)[index];
      tokens.insert(tokens.end(), conversation.begin(),
                    conversation.begin() + static_cast<std::ptrdiff_t>(std::min(conversation.size(), size)));
    }
    tokens.resize(size, stored(options_.padding_id, /*supervised=*/false, /*excluded=*/false));
    for (std::size_t i = 0; i + 1 < size; ++i) {
      batch.inputs.push_back(RenderedConversations::id_of(tokens[i]));
      batch.targets.push_back(RenderedConversations::target_of(tokens[i + 1], options_.packing));
    }
  }

  // Conversations in the buffer.
  std::vector<std::size_t> waiting_of(const nlohmann::json& json) const {
    const auto found = json.find("waiting");
    bool good = found != json.end() && found->is_array();
    std::vector<std::size_t> waiting;
    for (std::size_t i = 0; good && i < found->size(); ++i) {
      good = found->at(i).is_number_unsigned() && found->at(i).get<std::size_t>() < conversations_->size();
      if (good) waiting.push_back(found->at(i).get<std::size_t>());
    }
    if (good) return waiting;
    throw DataError(fmt::format("loader position: \"waiting\" is {:.100}, expected numbers below {}",
                                found == json.end() ? "missing" : found->dump(), conversations_->size()));
  }

  void restore(const nlohmann::json& json) {
    const nlohmann::json expected = position();
    for (const char* key : {"packing", "sequence_len", "seed", "conversations", "tokens"}) {
      if (json.value(key, nlohmann::json()) == expected.at(key)) continue;
      throw DataError(
          fmt::format("loader position: \"{}\" is {} where this loader's is {}; the data or the options have changed", key,
                      json.value(key, nlohmann::json()).dump(), expected.at(key).dump()));
    }
    epoch_ = json.at("epoch").get<std::int64_t>();
    last_epoch_ = json.at("last_epoch").get<std::int64_t>();
    place_ = json.at(unit()).get<std::size_t>();
    token_ = json.at("token").get<std::size_t>();
  }

  std::shared_ptr<const RenderedConversations> conversations_;
  ConversationLoaderOptions options_;
  std::vector<std::size_t> order_;  // kStream
  std::unique_ptr<BufferedRows> buffered_;  // kBestFitPad
  std::vector<Row> rows_;           // the others
  // Where the next batch begins: an index of order_ or rows_, and within a conversation (kStream).
  std::size_t place_ = 0, token_ = 0;
  std::int64_t epoch_ = 0, last_epoch_ = 0;
};

}  // namespace

std::span<const std::int32_t> RenderedConversations::operator[](std::size_t index) const {
  const Place& place = conversations_[index];
  return std::span(*tokens_).subspan(place.begin, place.end - place.begin);
}

std::size_t RenderedConversations::supervised_tokens() const {
  std::size_t count = 0;
  for (std::size_t i = 0; i < size(); ++i) {
    const auto tokens = (*this)[i];
    count += static_cast<std::size_t>(std::count_if(tokens.begin(), tokens.end(),
                                                    [](std::int32_t token) { return token >= 0; }));
  }
  return count;
}

bool RenderedConversations::has_target(std::size_t index, ConversationPacking packing) const {
  const auto tokens = (*this)[index];
  return !tokens.empty() &&
         std::any_of(tokens.begin() + 1, tokens.end(), [&](std::int32_t token) { return target_of(token, packing) >= 0; });
}

void RenderedConversations::add(const RenderedConversation& conversation) {
  const std::size_t begin = tokens_->size();
  for (std::size_t i = 0; i < conversation.ids.size(); ++i) {
    tokens_->push_back(stored(conversation.ids[i], conversation.mask[i] != 0,
                              !conversation.excluded.empty() && conversation.excluded[i] != 0));
  }
  conversations_.push_back({begin, tokens_->size(), conversation.cut()});
  token_count_ += conversation.ids.size();
}

void RenderedConversations::append(const RenderedConversations& other) {
  for (std::size_t i = 0; i < other.size(); ++i) {
    const auto tokens = other[i];
    const std::size_t begin = tokens_->size();
    tokens_->insert(tokens_->end(), tokens.begin(), tokens.end());
    conversations_.push_back({begin, tokens_->size(), other.is_cut(i)});
  }
  token_count_ += other.token_count_;
}

RenderedConversations RenderedConversations::select(const std::vector<std::size_t>& indices) const {
  RenderedConversations selected;
  selected.tokens_ = tokens_;
  for (const std::size_t index : indices) {
    selected.conversations_.push_back(conversations_[index]);
    selected.token_count_ += (*this)[index].size();
  }
  return selected;
}

std::int32_t RenderedConversations::id_of(std::int32_t stored) { return stored >= 0 ? stored : ~stored & ~kExcluded; }

std::int32_t RenderedConversations::target_of(std::int32_t stored, ConversationPacking packing) {
  if (stored >= 0) return stored;
  return packing == ConversationPacking::kStream && (~stored & kExcluded) == 0 ? ~stored : -1;
}

RenderedConversations render_conversations(const Tokenizer& tokenizer, std::int64_t count,
                                           const std::function<Conversation(std::int64_t)>& conversation,
                                           std::int64_t max_tokens, int workers) {
  constexpr std::int64_t kPart = 256;  // conversations of one piece of work
  std::vector<RenderedConversations> parts(static_cast<std::size_t>((count + kPart - 1) / kPart));
  for_each_index(parts.size(), workers, [&](std::size_t part) {
    const std::int64_t begin = static_cast<std::int64_t>(part) * kPart;
    for (std::int64_t i = begin; i < std::min(begin + kPart, count); ++i) {
      try {
        parts[part].add(render_conversation(tokenizer, conversation(i), max_tokens));
      } catch (const DataError& error) {
        throw DataError(fmt::format("conversation {}: {}", i + 1, error.what()));
      }
    }
  });
  RenderedConversations all;
  for (const RenderedConversations& part : parts) all.append(part);
  return all;
}

std::vector<std::vector<std::size_t>> best_fit_rows(const std::function<std::size_t(std::size_t)>& length,
                                                    std::vector<std::size_t> order, std::size_t room) {
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return length(a) > length(b); });
  std::vector<std::vector<std::size_t>> rows;
  std::set<std::pair<std::size_t, std::size_t>> open;  // (room left, row)
  for (const std::size_t item : order) {
    const std::size_t n = length(item);
    const auto fullest = open.lower_bound({n, 0});
    std::size_t left = room, row = rows.size();
    if (fullest == open.end()) {
      rows.emplace_back();
    } else {
      std::tie(left, row) = *fullest;
      open.erase(fullest);
    }
    rows[row].push_back(item);
    if (left > n) open.emplace(left - n, row);
  }
  return rows;
}

std::unique_ptr<Loader> make_conversation_loader(std::shared_ptr<const RenderedConversations> conversations,
                                                 const ConversationLoaderOptions& options, const nlohmann::json& position) {
  if (options.rows < 1 || options.sequence_len < 1) {
    throw ConfigError(fmt::format("loader: {} rows of {} tokens, expected at least one of each", options.rows,
                                  options.sequence_len));
  }
  if (options.rank < 0 || options.rank >= options.world_size) {
    throw ConfigError(fmt::format("loader: rank {} of {}", options.rank, options.world_size));
  }
  return std::make_unique<ConversationLoader>(std::move(conversations), options, position);
}

std::int64_t rows_of_epoch(const RenderedConversations& conversations, const ConversationLoaderOptions& options) {
  if (options.packing == ConversationPacking::kStream) {
    return static_cast<std::int64_t>(conversations.tokens()) / options.sequence_len;
  }
  return static_cast<std::int64_t>(rows_of(conversations, options, 0).size());
}

}  // namespace nanochat
