#pragma once
// Conversations as training batches. They are rendered once on several
// threads and held as token ids (4 bytes each). An epoch is packed in memory:
//
// kStream one conversation after the other, cut every T tokens; all tokens are targets, except
// those of messages that are not learned (Message::learned). As in the reference's mid_train.py.
//   kBestFit  whole conversations in rows of T, each in the fullest row that has room for it, the longest first (best-fit
//             decreasing, Johnson 1973); attention stays inside each (TokenBatch::documents), and only what the assistant
//             has to write is a target. What room is left at the end of a row is a document without targets.
//   kPadded   a row for each conversation, as long as the longest of its batch; targets as with kBestFit. As chat_sft.py.
//   kBestFitPad  whole conversations in rows of T + 1 tokens, chosen from a buffer (buffered_rows.h); the rest of a row is
//             padding. Attention crosses conversations; targets as with kBestFit. As chat_sft.py of the reference at 92d63d4.
//
// A conversation longer than a row is cut to its first T + 1 tokens. The order of conversations, and with kBestFit that of
// rows, is shuffled anew each epoch by the seed. A position is an epoch and a place in it, and with kBestFitPad what waits in
// the buffer: a resumed loader continues with the very next batch, and one of other rows with the very next row. Ranks share
// one order of batches as in loader.h.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "data/batches/loader.h"
#include "tokenizer/conversation.h"

namespace nanochat {

class Tokenizer;

enum class ConversationPacking { kStream, kBestFit, kPadded, kBestFitPad };

// Copies share the tokens. Immutable after construction; thread-safe.
class RenderedConversations {
 public:
  // Tokens of one conversation, to be read with id_of() and target_of().
  std::span<const std::int32_t> operator[](std::size_t index) const;
  std::size_t size() const { return conversations_.size(); }
  std::size_t tokens() const { return token_count_; }
  std::size_t supervised_tokens() const;
  bool is_cut(std::size_t index) const { return conversations_[index].cut; }  // it was longer and has been truncated
  // True if the conversation has a target after its first token.
  bool has_target(std::size_t index, ConversationPacking packing) const;
  void add(const RenderedConversation& conversation);
  void append(const RenderedConversations& other);
  // The conversations with these indices, in this order.
  RenderedConversations select(const std::vector<std::size_t>& indices) const;

  static std::int32_t id_of(std::int32_t stored);
  // The target for a token, or -1.
  static std::int32_t target_of(std::int32_t stored, ConversationPacking packing);

 private:
  std::shared_ptr<std::vector<std::int32_t>> tokens_ = std::make_shared<std::vector<std::int32_t>>();
  struct Place {
    std::size_t begin = 0, end = 0;  // in *tokens_
    bool cut = false;
  };
  std::vector<Place> conversations_;
  std::size_t token_count_ = 0;
};

// Renders conversation(0 .. count - 1), which is called from several threads, each truncated to max_tokens.
// workers 0: every core. Throws DataError; the message begins with the number (from 1) of the conversation.
RenderedConversations render_conversations(const Tokenizer& tokenizer, std::int64_t count,
                                           const std::function<Conversation(std::int64_t)>& conversation,
                                           std::int64_t max_tokens, int workers = 0);

struct ConversationLoaderOptions {
  std::int64_t rows = 8;             // B
  std::int64_t sequence_len = 2048;  // T
  ConversationPacking packing = ConversationPacking::kBestFit;
  std::int32_t padding_id = 0;       // input of positions without a conversation; never a target
  bool loop = true;                  // else next() is false after one epoch, and but for kStream its last batch is filled up
                                     // with rows without targets
  bool shuffle = true;
  std::uint64_t seed = 42;
  int rank = 0, world_size = 1;
  std::size_t buffer_conversations = 100;  // of kBestFitPad
};

// Conversations without a second token are left out. Throws DataError if none is left, if there are fewer tokens
// than a kStream batch needs, or for a position of another loader. `position`: null, or Loader::position().
std::unique_ptr<Loader> make_conversation_loader(std::shared_ptr<const RenderedConversations> conversations,
                                                 const ConversationLoaderOptions& options, const nlohmann::json& position);

// Packs items of these lengths, each at most `room`, into rows of `room` (best-fit
// decreasing). `order` has the items' indices and breaks ties; a row is a list of indices.
std::vector<std::vector<std::size_t>> best_fit_rows(const std::function<std::size_t(std::size_t)>& length,
                                                    std::vector<std::size_t> order, std::size_t room);

// Number of rows of T in one epoch; rounded down for kStream.
std::int64_t rows_of_epoch(const RenderedConversations& conversations, const ConversationLoaderOptions& options);

}  // namespace nanochat
