#pragma once
// Detects rows of evaluation sets in a training corpus by n-grams of words (Brown et al.
// 2020, GPT-3, appendix C, with n = 13). A word is a run of letters and digits, with ASCII
// in lower case and bytes beyond ASCII unchanged; other characters only separate words.

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace nanochat {

class ContaminationCheck {
 public:
  explicit ContaminationCheck(std::int64_t words = 13) : words_(static_cast<std::size_t>(words)) {}

  // Adds a row of an evaluation set. False if it has fewer words than an n-gram and therefore cannot be searched.
  bool add_row(std::string name, std::string_view text);
  // Adds a document of the corpus.
  void scan(std::string_view document, const std::string& where);

  struct Row {
    std::string name;
    std::uint64_t grams = 0, found = 0;  // number of distinct n-grams of the row, and of those in the corpus
    std::string first;                   // first document with one of them
    double share() const { return grams > 0 ? static_cast<double>(found) / static_cast<double>(grams) : 0.0; }
  };
  // Rows with at least one n-gram in the corpus, the largest overlap first.
  std::vector<Row> contaminated() const;
  std::uint64_t rows() const { return rows_.size(); }

 private:
  // Calls body(hash) for every n-gram.
  template <class Body>
  void for_each_gram(std::string_view text, const Body& body) const;

  std::size_t words_;
  std::vector<Row> rows_;
  struct Gram {
    std::vector<std::uint32_t> rows;
    bool found = false;
  };
  std::unordered_map<std::uint64_t, Gram> grams_;
};

}  // namespace nanochat
