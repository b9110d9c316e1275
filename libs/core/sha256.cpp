#include "core/sha256.h"

#include <openssl/evp.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <new>
#include <utility>
#include <vector>

#include "core/errors.h"

namespace nanochat {
namespace {

// Nothing but want of memory makes these fail.
void require(int success) {
  if (success != 1) throw std::bad_alloc();
}

}  // namespace

void Sha256::Free::operator()(evp_md_ctx_st* context) const { EVP_MD_CTX_free(context); }

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  require(context_ != nullptr && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1 ? 1 : 0);
}
Sha256::Sha256(const Sha256& other) : Sha256() { require(EVP_MD_CTX_copy_ex(context_.get(), other.context_.get())); }
Sha256& Sha256::operator=(Sha256 other) noexcept {
  std::swap(context_, other.context_);
  return *this;
}
Sha256::~Sha256() = default;

void Sha256::update(const void* data, std::size_t bytes) { require(EVP_DigestUpdate(context_.get(), data, bytes)); }

std::array<std::uint8_t, 32> Sha256::digest() {
  std::array<std::uint8_t, 32> result;
  require(EVP_DigestFinal_ex(context_.get(), result.data(), nullptr));
  return result;
}

std::string to_hex(const std::array<std::uint8_t, 32>& digest) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(64);
  for (const std::uint8_t byte : digest) {
    text.push_back(kDigits[byte >> 4]);
    text.push_back(kDigits[byte & 15]);
  }
  return text;
}

std::string sha256_hex(std::string_view bytes) {
  Sha256 hash;
  hash.update(bytes);
  return to_hex(hash.digest());
}

std::string sha256_hex_of_file(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    throw DataError(path.string() + ": no such file, or not a regular file");
  }
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw DataError(path.string() + ": cannot be opened: " + std::strerror(errno));
  Sha256 hash;
  std::vector<char> chunk(std::size_t{1} << 20);
  while (stream) {
    stream.read(chunk.data(), static_cast<std::streamsize>(chunk.size()));
    hash.update(chunk.data(), static_cast<std::size_t>(stream.gcount()));
  }
  if (!stream.eof()) throw DataError(path.string() + ": cannot be read: " + std::strerror(errno));
  return to_hex(hash.digest());
}

}  // namespace nanochat
