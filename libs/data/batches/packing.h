#pragma once
// Best-fit packing of one window of documents into rows of T+1 tokens: T inputs and, one later, T targets.
//
// A row begins with BOS. While there is room, the longest waiting document that fits with
// its BOS is added whole. If none fits, the longest waiting document is cut: its first
// tokens fill the row, and its rest waits as a document with its own BOS. Long documents,
// which no row can hold anyway, thus fill the gaps. Nothing is discarded, unlike in packings
// that crop (at T = 256 cropping would lose most of a book). Only the last row of a window
// can have room left: BOS follows its last document, and the targets after that are -1.
//
// Source: best-fit decreasing bin packing (Johnson 1973), applied to training rows by Ding et al. 2024, "Fewer
// Truncations Improve Language Modeling"; the reference's later BOS-aligned loader crops where this one cuts.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace nanochat {

class Rng;

inline constexpr std::uint64_t kWindowDocuments = 8192;
inline constexpr std::uint64_t kWindowTokens = 1 << 22;  // a window ends with the document that reaches this

// Documents without BOS, one after the other.
struct DocumentWindow {
  std::vector<std::int32_t> tokens;
  std::vector<std::size_t> ends;  // of each document in tokens

  void add(std::span<const std::int32_t> document);
  bool full() const { return ends.size() >= kWindowDocuments || tokens.size() >= kWindowTokens; }
};

class PackedWindow {
 public:
  PackedWindow() = default;
  PackedWindow(DocumentWindow window, std::int64_t sequence_len, std::int32_t bos_id);

  std::size_t rows() const { return row_ends_.size(); }
  void shuffle(Rng& rng);  // the order of the rows
  // Writes row `index`: T inputs and T targets.
  void copy_row(std::size_t index, std::int32_t* inputs, std::int32_t* targets) const;

 private:
  struct Piece {
    std::size_t begin;   // in window_.tokens
    std::size_t length;  // without BOS
  };

  DocumentWindow window_;
  std::size_t row_tokens_ = 0;  // T + 1
  std::int32_t bos_id_ = 0;
  std::vector<Piece> pieces_;          // in the order of rows
  std::vector<std::size_t> row_ends_;  // of each row in pieces_
  std::vector<std::size_t> order_;     // row shown as index
};

// For packings that choose from a buffer of waiting documents, in the order in which they came. Index of the longest that is
// at most `room`, the first among equals; lengths.size() if none is.
std::size_t longest_that_fits(const std::vector<std::size_t>& lengths, std::size_t room);
// Index of the shortest, the first among equals. `lengths` must not be empty.
std::size_t shortest_of(const std::vector<std::size_t>& lengths);

}  // namespace nanochat
