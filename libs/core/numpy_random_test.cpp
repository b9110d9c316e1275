#include "core/numpy_random.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "core/sha256.h"

namespace nanochat {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// The literals below are what NumPy 2.4.6 gives; a digest is that of the numbers, joined by commas.
TEST(NumpyPermutation, IsThatOfNumpy) {
  EXPECT_THAT(numpy_permutation(0, 42), IsEmpty());
  EXPECT_THAT(numpy_permutation(1, 42), ElementsAre(0));
  EXPECT_THAT(numpy_permutation(2, 42), ElementsAre(1, 0));
  EXPECT_THAT(numpy_permutation(5, 42), ElementsAre(4, 2, 3, 1, 0));
  EXPECT_THAT(numpy_permutation(10, 1337), ElementsAre(7, 6, 3, 5, 2, 8, 4, 9, 0, 1));
  EXPECT_THAT(numpy_permutation(12, 0), ElementsAre(9, 2, 7, 4, 5, 11, 0, 3, 6, 10, 8, 1));
}

TEST(NumpyPermutation, TakesSeedsOfTwoWords) {
  EXPECT_THAT(numpy_permutation(10, (std::uint64_t{1} << 40) + 5), ElementsAre(8, 1, 2, 5, 3, 0, 9, 7, 4, 6));
  EXPECT_THAT(numpy_permutation(3, ~std::uint64_t{0}), ElementsAre(0, 1, 2));
}

std::string digest(std::uint64_t n) {
  std::string text;
  for (const std::uint32_t item : numpy_permutation(n, 42)) text += (text.empty() ? "" : ",") + std::to_string(item);
  return sha256_hex(text);
}

TEST(NumpyPermutation, OrdersWholeSetsAsNumpy) {
  EXPECT_EQ(digest(164), "13b1280920f744503cc2d31176aaabb50145c85f7266b63aca1c31e96f92d273");
  EXPECT_EQ(digest(1319), "4d81ec792f8cded07f80b006862a0794aeeceb4ba2186978da8e8c6280782f20");
  EXPECT_EQ(digest(14042), "2ef2b977925dadce8768a6eae7169a3c4afb66b9fcfd6fe1e52d10fa53e3dd8c");
}

}  // namespace
}  // namespace nanochat
