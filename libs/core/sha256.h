#pragma once
// SHA-256 (FIPS 180-4) from OpenSSL, which uses the processor's instructions. Used
// for checkpoints, token shards and the identification of published tokenizers.

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

struct evp_md_ctx_st;  // EVP_MD_CTX of <openssl/evp.h>

namespace nanochat {

class Sha256 {
 public:
  Sha256();
  Sha256(const Sha256& other);  // continues from the same state
  Sha256& operator=(Sha256 other) noexcept;
  ~Sha256();
  void update(const void* data, std::size_t bytes);
  void update(std::string_view text) { update(text.data(), text.size()); }
  std::array<std::uint8_t, 32> digest();  // finishes; do not use the object afterwards

 private:
  struct Free {
    void operator()(evp_md_ctx_st* context) const;
  };
  std::unique_ptr<evp_md_ctx_st, Free> context_;
};

std::string to_hex(const std::array<std::uint8_t, 32>& digest);
std::string sha256_hex(std::string_view bytes);
std::string sha256_hex_of_file(const std::filesystem::path& path);  // reads the file as a stream; throws DataError

}  // namespace nanochat
