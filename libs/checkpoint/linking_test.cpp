// Two libraries of this program export a variable of the same name and different sizes; see libs/tokenizer/CMakeLists.txt.
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <gtest/gtest.h>

extern bool FLAGS_caffe2_use_fatal_for_enforce;  // of libc10; its neighbour in memory is the variable in question

namespace nanochat {
namespace {

TEST(Linking, SentencepieceLeavesLibTorchsFlagsAlone) {
  EXPECT_FALSE(FLAGS_caffe2_use_fatal_for_enforce);
  EXPECT_THROW(at::empty({std::int64_t{1} << 48}, at::kFloat), c10::Error);
}

}  // namespace
}  // namespace nanochat
