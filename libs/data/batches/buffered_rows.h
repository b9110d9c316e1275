#pragma once
// Rows of whole conversations chosen from a buffer, for ConversationPacking::kBestFitPad: while a row has room, the longest
// waiting conversation that fits is added, the first among equals; when none fits, the row ends. The buffer is filled up before
// every choice, from one epoch after another. Source: sft_data_generator_bos_bestfit of scripts/chat_sft.py of the reference at
// 92d63d4, where conversations longer than a row fill the buffer until every row is empty; here none may be longer.
//
// For one thread.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace nanochat {

struct BufferedRowsPosition {
  std::int64_t epoch = 0;  // of the next conversation to join the buffer
  std::size_t place = 0;  // and its place in the order of the epoch
  std::vector<std::size_t> waiting;  // conversations in the buffer, in the order in which they came
};

class BufferedRows {
 public:
  struct Options {
    std::size_t room = 0;  // tokens of a row
    std::size_t buffer = 0;  // conversations that wait before one is chosen
    bool loop = true;  // else next() returns false once every conversation of epoch 0 has been used
  };
  // length(conversation): its tokens, at most `room`. order(epoch): the conversations of an epoch, not empty.
  BufferedRows(const Options& options, std::function<std::size_t(std::size_t)> length,
               std::function<std::vector<std::size_t>(std::int64_t)> order, const BufferedRowsPosition& position = {});

  // Replaces `row` by the conversations of the next row.
  bool next(std::vector<std::size_t>& row);
  const BufferedRowsPosition& position() const { return position_; }

 private:
  void refill();

  Options options_;
  std::function<std::size_t(std::size_t)> length_;
  std::function<std::vector<std::size_t>(std::int64_t)> order_of_;
  BufferedRowsPosition position_;
  std::vector<std::size_t> lengths_;  // of position_.waiting
  std::vector<std::size_t> order_;  // of position_.epoch
};

}  // namespace nanochat
