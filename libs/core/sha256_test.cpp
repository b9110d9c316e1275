#include "core/sha256.h"

#include <algorithm>
#include <string>

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "core/errors.h"
#include "core/testing.h"

namespace nanochat {
namespace {

TEST(Sha256Test, PublishedVectors) {  // FIPS 180-4 examples
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256_hex(std::string(1000000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256Test, PaddingAroundABlock) {  // lengths where the padding changes shape; digests from Python's hashlib
  EXPECT_EQ(sha256_hex(std::string(55, 'x')), "d5e285683cd4efc02d021a5c62014694958901005d6f71e89e0989fac77e4072");
  EXPECT_EQ(sha256_hex(std::string(56, 'x')), "04c26261370ee7541549d16dee320c723e3fd14671e66a099afe0a377c16888e");
  EXPECT_EQ(sha256_hex(std::string(64, 'x')), "7ce100971f64e7001e8fe5a51973ecdfe1ced42befe7ee8d5fd6219506b5393c");
}

TEST(Sha256Test, PiecesGiveTheDigestOfTheWhole) {
  EXPECT_TRUE(rc::check([](const std::string& text, std::vector<std::uint8_t> cuts) {
    Sha256 hash;
    std::size_t start = 0;
    for (const std::uint8_t cut : cuts) {
      const std::size_t taken = std::min<std::size_t>(cut, text.size() - start);
      hash.update(std::string_view(text).substr(start, taken));
      start += taken;
    }
    hash.update(std::string_view(text).substr(start));
    RC_ASSERT(to_hex(hash.digest()) == sha256_hex(text));
  }));
}

TEST(Sha256Test, OfAFileIsThatOfItsBytes) {
  const testing::TemporaryDirectory folder;
  const std::string text(3000000, 'b');
  testing::write_text(folder / "file", text);
  EXPECT_EQ(sha256_hex_of_file(folder / "file"), sha256_hex(text));
  EXPECT_THROW(sha256_hex_of_file(folder / "absent"), DataError);
  EXPECT_THROW(sha256_hex_of_file(folder.path()), DataError);
}

}  // namespace
}  // namespace nanochat
