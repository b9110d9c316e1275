#pragma once
// For tests only: bytes as ids, and the special tokens that are asked for behind them.

#include <filesystem>
#include <string>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace nanochat::testing {

class ByteTokenizer : public Tokenizer {
 public:
  explicit ByteTokenizer(std::vector<std::string> special = {"<|bos|>"}) : special_(std::move(special)) {
    for (int i = 0; i < 256; ++i) bytes_.push_back(std::string(1, static_cast<char>(i)));
    bytes_.insert(bytes_.end(), special_.begin(), special_.end());
    fingerprint_ = "bytes";
  }
  std::string_view type() const override { return "bytes"; }
  std::int64_t vocab_size() const override { return static_cast<std::int64_t>(bytes_.size()); }
  using Tokenizer::encode;
  void encode(std::string_view text, std::vector<TokenId>& ids) const override {
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  }
  std::string_view token_bytes(TokenId id) const override { return bytes_.at(static_cast<std::size_t>(id)); }
  const std::vector<std::string>& special_tokens() const override { return special_; }
  void save(const std::filesystem::path&) const override {}

 private:
  std::vector<std::string> bytes_, special_;
};

}  // namespace nanochat::testing
