#pragma once
// For tests only: a tokenizer whose ids are the bytes of the text, with <|bos|> behind them.

#include <chrono>
#include <filesystem>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/sha256.h"
#include "tokenizer/tokenizer.h"

namespace nanochat::testing {

inline constexpr std::int32_t kByteBos = 256;

class ByteTokenizer : public Tokenizer {
 public:
  // Every encode() takes `delay`; a text that holds `poison` cannot be encoded.
  explicit ByteTokenizer(std::chrono::microseconds delay = {}, std::string poison = {})
      : delay_(delay), poison_(std::move(poison)) {
    fingerprint_ = sha256_hex("byte tokenizer");
  }
  using Tokenizer::encode;
  std::string_view type() const override { return "byte"; }
  std::int64_t vocab_size() const override { return 257; }
  void encode(std::string_view text, std::vector<TokenId>& ids) const override {
    if (delay_.count() > 0) std::this_thread::sleep_for(delay_);
    if (!poison_.empty() && text.find(poison_) != std::string_view::npos) throw TokenizerError("poison");
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  }
  std::string_view token_bytes(TokenId id) const override {
    static const std::string name = "<|bos|>";
    static const std::string bytes = [] {
      std::string all;
      for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
      return all;
    }();
    return id == kByteBos ? std::string_view(name) : std::string_view(bytes).substr(static_cast<std::size_t>(id), 1);
  }
  const std::vector<std::string>& special_tokens() const override {
    static const std::vector<std::string> names = {"<|bos|>"};
    return names;
  }
  void save(const std::filesystem::path& folder) const override { write_file_atomically(folder / "tokenizer.json", "{}\n"); }

 private:
  std::chrono::microseconds delay_;
  std::string poison_;
};

}  // namespace nanochat::testing
