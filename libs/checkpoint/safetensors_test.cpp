#include "checkpoint/safetensors.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cstring>
#include <functional>
#include <map>

#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/testing.h"

namespace nanochat {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr at::ScalarType kDtypes[] = {at::kBool, at::kByte, at::kChar,     at::kShort, at::kInt,
                                      at::kLong, at::kHalf, at::kBFloat16, at::kFloat, at::kDouble};

bool same_bytes(const at::Tensor& a, const at::Tensor& b) {
  if (a.scalar_type() != b.scalar_type() || a.sizes() != b.sizes()) return false;
  const at::Tensor dense = a.contiguous();
  return a.numel() == 0 || std::memcmp(dense.const_data_ptr(), b.const_data_ptr(), b.nbytes()) == 0;
}

// A file from its parts, however wrong.
void write_raw(const std::filesystem::path& path, const std::string& header, const std::string& data,
               std::int64_t claimed = -1) {
  const std::uint64_t length = claimed < 0 ? header.size() : static_cast<std::uint64_t>(claimed);
  std::string bytes(sizeof length, '\0');
  std::memcpy(bytes.data(), &length, sizeof length);
  nanochat::testing::write_text(path, bytes + header + data);
}

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const CheckpointError& error) {
    return error.what();
  }
  return "";
}

class SafetensorsTest : public ::testing::Test {
 protected:
  std::string error_of(const std::string& header, const std::string& data, std::int64_t claimed = -1) {
    write_raw(path_, header, data, claimed);
    return message_of([&] { SafetensorsFile file(path_); });
  }
  nanochat::testing::TemporaryDirectory folder_;
  std::filesystem::path path_ = folder_ / "a.safetensors";
};

RC_GTEST_FIXTURE_PROP(SafetensorsTest, RoundTrip, ()) {
  NamedTensors tensors;
  const int count = *rc::gen::inRange(0, 6);
  for (int i = 0; i < count; ++i) {
    const auto shape = *rc::gen::resize(4, rc::gen::container<std::vector<std::int64_t>>(rc::gen::inRange<std::int64_t>(0, 5)));
    const at::ScalarType dtype = kDtypes[*rc::gen::inRange<std::size_t>(0, std::size(kDtypes))];
    at::Tensor tensor = at::empty(shape, dtype);
    auto* bytes = static_cast<unsigned char*>(tensor.mutable_data_ptr());
    for (std::size_t b = 0; b < tensor.nbytes(); ++b) {
      bytes[b] = static_cast<unsigned char>(*rc::gen::inRange(0, dtype == at::kBool ? 2 : 256));
    }
    if (*rc::gen::arbitrary<bool>() && tensor.dim() == 2) tensor = tensor.t();  // not contiguous
    const auto suffix = *rc::gen::element<std::string>("", ".weight", "\"quoted\\\n", "\xc3\xa9");
    tensors.emplace_back("t" + std::to_string(i) + suffix, tensor);
  }
  const std::map<std::string, std::string> metadata = {{"format", "pt"}, {"note", *rc::gen::element<std::string>("", "x\"y")}};
  write_safetensors(path_, tensors, metadata);

  const SafetensorsFile file(path_);
  RC_ASSERT(file.metadata() == metadata);
  RC_ASSERT(file.entries().size() == tensors.size());
  for (const auto& [name, tensor] : tensors) {
    RC_ASSERT(file.contains(name));
    RC_ASSERT(same_bytes(tensor, file.tensor(name)));
    RC_ASSERT(file.entry(name).begin % tensor.element_size() == 0);
    at::Tensor target = at::empty(tensor.sizes(), tensor.options());
    file.read_into(name, target);
    RC_ASSERT(same_bytes(tensor, target));
  }
}

TEST_F(SafetensorsTest, LayoutIsTheFormats) {
  write_safetensors(path_, {{"b", at::full({3}, 2, at::kByte)}, {"a", at::arange(2, at::kFloat)}}, {{"format", "pt"}});
  const std::string bytes = read_file(path_);
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  EXPECT_EQ((sizeof length + length) % 64, 0u);
  EXPECT_EQ(bytes[8], '{');
  EXPECT_EQ(json::parse(bytes.substr(8, length)), json::parse(R"({"__metadata__": {"format": "pt"},
                            "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                            "b": {"dtype": "U8", "shape": [3], "data_offsets": [8, 11]}})"));
  EXPECT_EQ(bytes.substr(8 + length), std::string("\0\0\0\0\0\0\x80\x3f\2\2\2", 11));
}

TEST_F(SafetensorsTest, ReadIntoConvertsFloatingTypes) {
  const at::Tensor values = at::randn({4, 3});
  write_safetensors(path_, {{"h", values.to(at::kHalf)}, {"b", values.to(at::kBFloat16)}, {"d", values.to(at::kDouble)}});
  const SafetensorsFile file(path_);
  for (const char* name : {"h", "b", "d"}) {
    at::Tensor wide = at::zeros({6, 3});
    at::Tensor rows = wide.narrow(0, 1, 4);
    file.read_into(name, rows);
    EXPECT_TRUE(rows.equal(file.tensor(name).to(at::kFloat))) << name;
    EXPECT_EQ(wide.select(0, 0).abs().sum().item<float>(), 0.0f);
    EXPECT_EQ(wide.select(0, 5).abs().sum().item<float>(), 0.0f);
    at::Tensor transposed = at::zeros({3, 4}).t();
    file.read_into(name, transposed);
    EXPECT_TRUE(transposed.equal(rows)) << name;
  }
}

TEST_F(SafetensorsTest, ReadsTensorsAtOddAddresses) {
  const std::string floats("\0\0\x80\x3f\0\0\0\x40", 8);  // 1, 2
  write_raw(path_, R"({"odd":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} )", floats);
  const SafetensorsFile file(path_);
  ASSERT_NE(file.entry("odd").begin % 4, 0u);
  at::Tensor target = at::zeros({2}, at::kDouble);
  file.read_into("odd", target);
  EXPECT_TRUE(target.equal(at::arange(1, 3, at::kDouble)));
  EXPECT_TRUE(file.tensor("odd").equal(at::arange(1, 3, at::kFloat)));
}

TEST_F(SafetensorsTest, ReadIntoRefusesWhatDoesNotFit) {
  write_safetensors(path_, {{"w", at::zeros({2, 3})}, {"n", at::zeros({2}, at::kInt)}});
  const SafetensorsFile file(path_);
  at::Tensor wrong_shape = at::zeros({3, 2}), floats = at::zeros({2});
  EXPECT_THAT(message_of([&] { file.read_into("w", wrong_shape); }),
              AllOf(HasSubstr(path_.string() + ": w has shape (2, 3)"), HasSubstr("expected (3, 2)")));
  EXPECT_THAT(message_of([&] { file.read_into("n", floats); }), HasSubstr("n holds I32, expected F32"));
  EXPECT_THAT(message_of([&] { file.read_into("absent", floats); }), HasSubstr("tensor absent is missing"));
  EXPECT_THAT(message_of([&] { file.tensor("absent"); }), HasSubstr("tensor absent is missing"));
  EXPECT_FALSE(file.contains("absent"));
}

TEST_F(SafetensorsTest, WriterRefusesWhatTheFormatLacks) {
  const at::Tensor x = at::zeros({1});
  EXPECT_THROW(write_safetensors(path_, {{"a", x}, {"a", x}}), c10::Error);
  EXPECT_THROW(write_safetensors(path_, {{"__metadata__", x}}), c10::Error);
  EXPECT_THROW(write_safetensors(path_, {{"a", at::Tensor()}}), c10::Error);
  EXPECT_THROW(write_safetensors(path_, {{"a", at::zeros({1}, at::kComplexFloat)}}), c10::Error);
  EXPECT_FALSE(std::filesystem::exists(path_));
  EXPECT_THROW(write_safetensors(folder_ / "absent" / "a.safetensors", {{"a", x}}), IoError);
}

TEST_F(SafetensorsTest, RefusesFilesWithoutAWholeHeader) {
  nanochat::testing::write_text(path_, "1234567");
  EXPECT_THAT(message_of([&] { SafetensorsFile file(path_); }), HasSubstr("too short"));
  EXPECT_THAT(message_of([&] { SafetensorsFile file(folder_ / "absent"); }), HasSubstr("absent"));
  EXPECT_THAT(message_of([&] { SafetensorsFile file(folder_.path()); }), HasSubstr("not a regular file"));
  EXPECT_THAT(error_of("{}", "", 3), HasSubstr("claims 3 bytes, but only 2 follow"));
  EXPECT_THAT(error_of("{}", "", std::int64_t{1} << 62), HasSubstr("only 2 follow"));
  EXPECT_THAT(error_of("{\"a\"", ""), HasSubstr("header: not valid JSON"));
  EXPECT_THAT(error_of("[]", ""), HasSubstr("expected an object"));
  EXPECT_THAT(error_of("{\"a\":" + std::string(200'000, '['), ""), HasSubstr("nested deeper"));
  EXPECT_THAT(error_of(R"({"__metadata__": 3})", ""), HasSubstr("__metadata__ must be an object"));
  EXPECT_THAT(error_of(R"({"__metadata__": {"k": 3}})", ""), HasSubstr("k is not a string"));
  EXPECT_EQ(error_of("{}  ", ""), "");
}

TEST_F(SafetensorsTest, HeaderBeyondTheFormatsLimitIsRefused) {
  write_raw(path_, "{}", "", 100'000'001);
  std::filesystem::resize_file(path_, 8 + 100'000'001);  // sparse
  EXPECT_THAT(message_of([&] { SafetensorsFile file(path_); }), HasSubstr("more than the format's limit"));
}

TEST_F(SafetensorsTest, RefusesTensorsThatDoNotFitTheirBytes) {
  const auto entry = [&](const std::string& fields, const std::string& data) {
    return error_of("{\"w\": {" + fields + "}}", data);
  };
  const std::string eight(8, 'x');
  EXPECT_EQ(entry(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])", eight), "");
  EXPECT_EQ(entry(R"("dtype":"F64","shape":[],"data_offsets":[0,8])", eight), "");
  EXPECT_THAT(error_of(R"({"w": [1]})", ""), HasSubstr("w: is described by a JSON array"));
  EXPECT_THAT(entry(R"("shape":[2],"data_offsets":[0,8])", eight), HasSubstr("w: \"dtype\" is missing"));
  EXPECT_THAT(entry(R"("dtype":"F32","data_offsets":[0,8])", eight), HasSubstr("\"shape\" is missing"));
  EXPECT_THAT(entry(R"("dtype":"F32","shape":[2])", eight), HasSubstr("\"data_offsets\" is missing"));
  EXPECT_THAT(entry(R"("dtype":"F9","shape":[2],"data_offsets":[0,8])", eight),
              AllOf(HasSubstr("dtype \"F9\" is not supported"), HasSubstr("BF16")));
  EXPECT_THAT(entry(R"("dtype":4,"shape":[2],"data_offsets":[0,8])", eight), HasSubstr("dtype 4 is not supported"));
  EXPECT_THAT(entry(R"("dtype":"F32","shape":2,"data_offsets":[0,8])", eight), HasSubstr("shape must be an array"));
  EXPECT_THAT(entry(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])", eight), HasSubstr("shape holds -2"));
  EXPECT_THAT(entry(R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])", eight), HasSubstr("shape holds 2.0"));
  EXPECT_THAT(entry(R"("dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8])", eight), HasSubstr("too large"));
  // 2^62 * 4 bytes wraps around to 0 in 64 bits, and so does 2^33 * 2^33.
  EXPECT_THAT(entry(R"("dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0])", ""), HasSubstr("is too large"));
  EXPECT_THAT(entry(R"("dtype":"U8","shape":[8589934592,8589934592],"data_offsets":[0,0])", ""), HasSubstr("is too large"));
  std::string ones = "1";
  for (int i = 0; i < 64; ++i) ones += ",1";
  EXPECT_THAT(entry(R"("dtype":"F64","data_offsets":[0,8],"shape":[)" + ones + "]", eight), HasSubstr("65 dimensions"));
  EXPECT_THAT(entry(R"("dtype":"F32","shape":[2],"data_offsets":[0])", eight), HasSubstr("array of two numbers"));
  EXPECT_THAT(entry(R"("dtype":"F32","shape":[2],"data_offsets":[0,"8"])", eight), HasSubstr("data_offsets holds \"8\""));
  EXPECT_THAT(entry(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])", eight), HasSubstr("do not lie in the 8 bytes"));
  EXPECT_THAT(entry(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])", "1234567"), HasSubstr("truncated or damaged"));
  EXPECT_THAT(entry(R"("dtype":"F32","shape":[1],"data_offsets":[0,8])", eight),
              HasSubstr("has 8 bytes, but its shape (1) needs 4"));
}

TEST_F(SafetensorsTest, RangesMustCoverTheDataExactly) {
  const auto two = [](int a, int b) {
    return R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[)" + std::to_string(a) + "," + std::to_string(a + 4) +
           R"(]},"b":{"dtype":"U8","shape":[4],"data_offsets":[)" + std::to_string(b) + "," + std::to_string(b + 4) + "]}}";
  };
  EXPECT_EQ(error_of(two(0, 4), "12345678"), "");
  EXPECT_EQ(error_of(two(4, 0), "12345678"), "");
  EXPECT_THAT(error_of(two(0, 2), "123456"), HasSubstr("b: its bytes begin at 2, but those of the tensors before end at 4"));
  EXPECT_THAT(error_of(two(0, 0), "1234"), HasSubstr("may not overlap"));
  EXPECT_THAT(error_of(two(0, 5), "123456789"), HasSubstr("leave gaps"));
  EXPECT_THAT(error_of(two(0, 4), "123456789"), HasSubstr("1 bytes at the end belong to no tensor"));
}

}  // namespace
}  // namespace nanochat
