#include "checkpoint/torch_file.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/rand.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/mapped_file.h"
#include "core/pickle.h"
#include "core/random.h"
#include "core/testing.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using namespace std::string_literals;

// The archive that torch.save makes around a pickle and the bytes of its storages.
void write_archive(const fs::path& path, const std::string& pickle, const std::vector<std::string>& storages,
                   const std::string& byte_order = "little") {
  AtomicFile file(path);
  ZipWriter archive(file);
  archive.add("archive/data.pkl", pickle);
  archive.add("archive/byteorder", byte_order);
  for (std::size_t i = 0; i < storages.size(); ++i) archive.add("archive/data/" + std::to_string(i), storages[i]);
  archive.finish();
  file.commit();
}

std::string floats(std::initializer_list<float> values) {
  std::string bytes;
  for (const float value : values) bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  return bytes;
}

// pickle of torch.save({"_orig_mod.w": torch.tensor([[1., 2., 3.], [4., 5., 6.]])}), as CPython writes it.
std::string python_pickle() {
  return "\x80\x02}q\x00X\x0b\x00\x00\x00_orig_mod.wq\x01"s
         "ctorch._utils\n_rebuild_tensor_v2\nq\x02((X\x07\x00\x00\x00storageq\x03"s
         "ctorch\nFloatStorage\nq\x04X\x01\x00\x00\x00"s
         "0q\x05X\x03\x00\x00\x00"s
         "cpuq\x06K\x06tq\x07QK\x00K\x02K\x03\x86q\x08K\x03K\x01\x86q\x09\x89"s
         "ccollections\nOrderedDict\nq\n)Rq\x0btq\x0cRq\x0ds."s;
}

// A tensor that can be wrong in every place.
struct Tensor {
  std::string name = "w", storage_kind = "storage", module = "torch", type = "FloatStorage", key = "0";
  std::int64_t elements = 6, offset = 0;
  std::vector<std::int64_t> sizes = {2, 3}, strides = {3, 1};
  std::string function = "_rebuild_tensor_v2";
};

std::string pickle_of(const std::vector<Tensor>& tensors) {
  PickleWriter writer(2);
  writer.empty_dict();
  writer.mark();
  for (const Tensor& tensor : tensors) {
    writer.string(tensor.name);
    writer.global("torch._utils", tensor.function);
    writer.mark();
    writer.mark();
    writer.string(tensor.storage_kind);
    writer.global(tensor.module, tensor.type);
    writer.string(tensor.key);
    writer.string("cuda:0");
    writer.integer(tensor.elements);
    writer.tuple();
    writer.persistent_id();
    writer.integer(tensor.offset);
    for (const auto& list : {tensor.sizes, tensor.strides}) {
      writer.mark();
      for (const std::int64_t number : list) writer.integer(number);
      writer.tuple();
    }
    writer.boolean(false);
    writer.none();
    writer.tuple();
    writer.reduce();
  }
  writer.set_items();
  return writer.finish();
}

class TorchFileTest : public ::testing::Test {
 protected:
  std::string error_of(const std::string& pickle, const std::vector<std::string>& storages,
                       const std::string& byte_order = "little") {
    write_archive(path_, pickle, storages, byte_order);
    try {
      const TorchFile file(path_);
    } catch (const CheckpointError& error) {
      EXPECT_THAT(error.what(), HasSubstr(path_.string()));
      return error.what();
    }
    return "no error";
  }
  std::string error_with(const std::function<void(Tensor&)>& change) {
    Tensor tensor;
    change(tensor);
    return error_of(pickle_of({tensor}), {six_});
  }
  testing::TemporaryDirectory folder_;
  fs::path path_ = folder_ / "model.pt";
  std::string six_ = floats({1, 2, 3, 4, 5, 6});
};

TEST_F(TorchFileTest, ReadsWhatPythonWrites) {
  write_archive(path_, python_pickle(), {six_});
  const TorchFile file(path_);
  ASSERT_EQ(file.entries().size(), 1U);
  EXPECT_EQ(file.dtype_text(), "F32");
  EXPECT_TRUE(at::equal(file.tensor("w"), at::arange(1, 7, at::kFloat).view({2, 3})));
  EXPECT_THROW(file.tensor("_orig_mod.w"), CheckpointError);
  at::Tensor doubles = at::empty({2, 3}, at::kDouble);
  file.read_into("w", doubles);
  EXPECT_EQ(doubles[1][2].item<double>(), 6.0);
  at::Tensor other = at::empty({3, 2});
  EXPECT_THROW(file.read_into("w", other), CheckpointError);
}

TEST_F(TorchFileTest, ReadsWhatItWrites) {
  const NamedTensors tensors = {{"a", at::rand({3, 5})},
                                {"b.c", at::rand({4}).to(at::kBFloat16)},
                                {"d", at::rand({2, 1, 3}).to(at::kHalf)},
                                {"e", at::rand({2, 2}, at::kDouble)},
                                {"t", at::rand({3, 2}).t()},
                                {"none", at::empty({0, 4})},
                                {"scalar", at::rand({})}};
  write_torch_file(path_, tensors);
  const TorchFile file(path_);
  ASSERT_EQ(file.entries().size(), tensors.size());
  for (const auto& [name, tensor] : tensors) {
    EXPECT_EQ(file.entry(name).dtype, tensor.scalar_type());
    EXPECT_TRUE(at::equal(file.tensor(name), tensor)) << name;
  }
  EXPECT_THROW(write_torch_file(path_, {{"i", at::arange(3)}}), c10::Error);
}

TEST_F(TorchFileTest, TakesPartsOfAStorage) {
  Tensor first, second;
  first.sizes = {1, 3};
  second.name = "v";
  second.offset = 3;
  second.sizes = {3};
  second.strides = {1};
  write_archive(path_, pickle_of({first, second}), {six_});
  EXPECT_EQ(TorchFile(path_).tensor("v")[0].item<float>(), 4.0F);
}

TEST_F(TorchFileTest, ReadsBytesAtHandByTheNameTheyAreGiven) {
  write_archive(path_, python_pickle(), {six_});
  const MappedFile map(path_);
  EXPECT_TRUE(at::equal(TorchFile(MappedFile::view(map.bytes()), "memory").tensor("w"), TorchFile(path_).tensor("w")));
  try {
    TorchFile(MappedFile::view(map.bytes().first(40)), "memory");
    FAIL() << "took part of an archive";
  } catch (const CheckpointError& error) {
    EXPECT_THAT(error.what(), HasSubstr("memory: "));
  }
}

TEST_F(TorchFileTest, RefusesWhatDoesNotFit) {
  EXPECT_EQ(error_of(pickle_of({Tensor()}), {six_}), "no error");
  EXPECT_THAT(error_with([](Tensor& t) { t.elements = 7; }),
              HasSubstr("w: claims 7 elements of 4 bytes, but archive/data/0 has 24"));
  EXPECT_THAT(error_with([](Tensor& t) { t.elements = std::int64_t{1} << 62; }),
              HasSubstr("claims 4611686018427387904 elements"));
  EXPECT_THAT(error_with([](Tensor& t) { t.elements = -1; }), HasSubstr("negative size"));
  EXPECT_THAT(error_with([](Tensor& t) { t.type = "DoubleStorage"; }), HasSubstr("claims 6 elements of 8 bytes"));
  EXPECT_THAT(error_with([](Tensor& t) { t.type = "LongStorage"; }), HasSubstr("w: has elements of torch.LongStorage"));
  EXPECT_THAT(error_with([](Tensor& t) {
                t.module = "os";
                t.type = "system";
              }),
              HasSubstr("elements of os.system"));
  EXPECT_THAT(error_with([](Tensor& t) { t.key = "1"; }), HasSubstr("its storage archive/data/1 is missing"));
  EXPECT_THAT(error_with([](Tensor& t) { t.key = "../data.pkl\n"; }), HasSubstr("is missing"));
  EXPECT_THAT(error_with([](Tensor& t) { t.storage_kind = "module"; }), HasSubstr("something else than a storage"));
  EXPECT_THAT(error_with([](Tensor& t) { t.offset = 1; }), HasSubstr("needs 6 elements from 1 on, but its storage has 6"));
  EXPECT_THAT(error_with([](Tensor& t) { t.offset = -1; }), HasSubstr("negative size"));
  EXPECT_THAT(error_with([](Tensor& t) {
                t.sizes = {2, 4};
                t.strides = {4, 1};
              }),
              HasSubstr("needs 8 elements"));
  EXPECT_THAT(error_with([](Tensor& t) {
                t.sizes = {3, 2};
                t.strides = {1, 3};
              }),
              HasSubstr("not stored row by row"));
  EXPECT_THAT(error_with([](Tensor& t) {
                t.sizes = {1 << 20, 1 << 20};
                t.strides = {0, 0};
              }),
              HasSubstr("not stored row by row"));
  EXPECT_THAT(error_with([](Tensor& t) {
                t.sizes = {std::int64_t{1} << 40, std::int64_t{1} << 40};
                t.strides = {std::int64_t{1} << 40, 1};
              }),
              HasSubstr("too many elements"));
  EXPECT_THAT(error_with([](Tensor& t) { t.strides = {1}; }), HasSubstr("sizes and strides that do not fit"));
  EXPECT_THAT(error_with([](Tensor& t) { t.function = "_rebuild_sparse_tensor"; }),
              HasSubstr("w: is made by torch._utils._rebuild_sparse_tensor, expected a dense tensor"));

  EXPECT_THAT(error_of(pickle_of({Tensor(), Tensor()}), {six_}), HasSubstr("w: is there twice"));
  std::vector<Tensor> aliases(2000);
  for (std::size_t i = 0; i < aliases.size(); ++i) aliases[i].name = "w" + std::to_string(i);
  const std::string many(400'000, '\0');
  for (Tensor& alias : aliases) {
    alias.elements = 100'000;
    alias.sizes = {100'000};
    alias.strides = {1};
  }
  EXPECT_THAT(error_of(pickle_of(aliases), {many}), HasSubstr("shares its elements with other tensors"));
  EXPECT_THAT(error_of(pickle_of({Tensor()}), {six_}, "big"), HasSubstr("big-endian"));
  EXPECT_THAT(error_of("\x80\x02N."s, {}), HasSubstr("holds None, expected a dictionary of tensors"));
  EXPECT_THAT(error_of("\x80\x02}X\x01\0\0\0wK\x01s."s, {}), HasSubstr("w: is an integer, expected a tensor"));
  EXPECT_THAT(error_of("\x80\x02}K\x01K\x01s."s, {}), HasSubstr("found an integer, expected a string"));
  EXPECT_THAT(error_of("\x80\x02"
                       "cos\nsystem\nX\x02\0\0\0ls\x85R."s,
                       {}),
              HasSubstr("holds os.system, expected a dictionary of tensors"));
}

TEST_F(TorchFileTest, RefusesOtherArchives) {
  AtomicFile file(path_);
  ZipWriter archive(file);
  archive.add("model/weights", "x");
  archive.finish();
  file.commit();
  EXPECT_THROW(TorchFile{path_}, CheckpointError);
}

// Everything that decides a tensor is under a CRC-32, so damage is found or has changed nothing.
TEST_F(TorchFileTest, DamageIsAnErrorOrChangesNothing) {
  const NamedTensors tensors = {{"a.weight", at::rand({7, 5})}, {"b.weight", at::rand({16}).to(at::kBFloat16)}};
  write_torch_file(path_, tensors);
  const std::string original = read_file(path_);
  Rng rng(20251125);
  constexpr int kRounds = 1000;
  int refused = 0;
  for (int round = 0; round < kRounds; ++round) {
    std::string bytes = original;
    switch (round % 6) {
      case 0: bytes.resize(rng.below(bytes.size())); break;
      case 1: bytes[rng.below(bytes.size())] ^= static_cast<char>(1 << rng.below(8)); break;
      case 2: std::swap(bytes[rng.below(bytes.size())], bytes[rng.below(bytes.size())]); break;
      case 3: bytes.insert(rng.below(bytes.size()), 1 + rng.below(9), static_cast<char>(rng.below(256))); break;
      case 4:  // a number that lies, in a header or the directory
        for (std::size_t at = rng.below(bytes.size() - 8), i = 0; i < 4; ++i)
          bytes[at + i] = static_cast<char>(rng.below(2) * 255);
        break;
      default: {  // in the directory at the end
        const std::size_t at = bytes.size() - 1 - rng.below(std::min<std::size_t>(bytes.size(), 500));
        bytes[at] = static_cast<char>(rng.below(256));
        break;
      }
    }
    testing::write_text(path_, bytes);
    try {
      const TorchFile file(path_);
      ASSERT_EQ(file.entries().size(), tensors.size());
      for (const auto& [name, tensor] : tensors) ASSERT_TRUE(at::equal(file.tensor(name), tensor)) << "round " << round;
    } catch (const CheckpointError& error) {
      ASSERT_THAT(error.what(), HasSubstr(path_.string()));
      ASSERT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
      ++refused;
      continue;
    }
    ASSERT_NE(round % 6, 0) << "a truncated file was accepted";
  }
  EXPECT_GT(refused, kRounds / 3);
}

// The same with the pickle's CRC-32 made right again, so that the damage reaches its reader.
TEST_F(TorchFileTest, DamagedPicklesAreErrorsOrTensors) {
  const std::string original = pickle_of({Tensor()});
  Rng rng(20251126);
  int refused = 0;
  constexpr int kRounds = 1000;
  for (int round = 0; round < kRounds; ++round) {
    std::string bytes = original;
    for (std::size_t i = 0, changes = 1 + rng.below(3); i < changes; ++i) {
      bytes[rng.below(bytes.size())] = static_cast<char>(rng.below(256));
    }
    const std::string message = error_of(bytes, {six_});
    if (message == "no error") {
      const TorchFile file(path_);
      for (const auto& [name, entry] : file.entries()) ASSERT_LE(file.tensor(name).nbytes(), six_.size());
    } else {
      ASSERT_EQ(message.find('\n'), std::string::npos) << message;
      ++refused;
    }
  }
  EXPECT_GT(refused, kRounds / 2);
}

}  // namespace
}  // namespace nanochat
