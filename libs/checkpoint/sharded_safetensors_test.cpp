#include "checkpoint/internal/sharded_safetensors.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/rand.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "checkpoint/checkpoint.h"
#include "checkpoint/testing.h"
#include "core/atomic_file.h"
#include "core/errors.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ShardedTest : public ::testing::Test {
 protected:
  void change_index(const std::function<void(json&)>& change) {
    json index = json::parse(original_);
    change(index);
    testing::write_text(index_, index.dump());
  }
  std::string error() {
    try {
      const ShardedSafetensors files(index_);
    } catch (const CheckpointError& caught) {
      return caught.what();
    }
    return "no error";
  }
  void SetUp() override {
    names_ = write_weights(folder_.path(), tensors_, 100);
    original_ = read_file(index_);
  }
  testing::TemporaryDirectory folder_;
  NamedTensors tensors_ = {{"a", at::rand({5, 4})}, {"b", at::rand({3})}, {"c", at::rand({2, 50})}, {"d", at::rand({1})}};
  std::vector<std::string> names_;
  fs::path index_ = folder_ / "model.safetensors.index.json";
  std::string original_;
};

TEST_F(ShardedTest, SpreadsAndPresentsAsOne) {
  EXPECT_THAT(names_, ElementsAre("model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                                  "model-00003-of-00003.safetensors", "model.safetensors.index.json"));
  const json index = json::parse(original_);
  EXPECT_EQ(index.at("metadata").at("total_size"), 4 * (20 + 3 + 100 + 1));
  EXPECT_EQ(index.at("weight_map").at("b"), "model-00001-of-00003.safetensors");
  EXPECT_EQ(index.at("weight_map").at("c"), "model-00002-of-00003.safetensors") << "larger than a file may be: alone";
  const ShardedSafetensors files(index_);
  EXPECT_EQ(files.files().size(), 3U);
  ASSERT_EQ(files.entries().size(), 4U);
  for (const auto& [name, tensor] : tensors_) EXPECT_TRUE(at::equal(files.tensor(name), tensor)) << name;
  EXPECT_THROW(files.tensor("e"), CheckpointError);
}

TEST_F(ShardedTest, OneFileNeedsNoIndex) {
  const testing::TemporaryDirectory other;
  EXPECT_THAT(write_weights(other.path(), tensors_, 0), ElementsAre("model.safetensors"));
  EXPECT_THAT(write_weights(other.path(), tensors_, 1 << 20), ElementsAre("model.safetensors"));
  EXPECT_FALSE(fs::exists(other / "model.safetensors.index.json"));
}

TEST_F(ShardedTest, IndexAndFilesMustAgree) {
  change_index([](json& index) { index.erase("weight_map"); });
  EXPECT_THAT(error(), HasSubstr("\"weight_map\" must be an object"));
  change_index([](json& index) { index["weight_map"] = json::object(); });
  EXPECT_THAT(error(), HasSubstr("\"weight_map\" must be an object"));
  change_index([](json& index) { index["weight_map"]["a"] = 1; });
  EXPECT_THAT(error(), HasSubstr("a is mapped to no file name"));
  for (const char* outside : {"../x.safetensors", "/etc/passwd", "..", ""}) {
    change_index([&](json& index) { index["weight_map"]["a"] = outside; });
    EXPECT_THAT(error(), HasSubstr("expected the name of a file beside the index")) << outside;
  }
  change_index([](json& index) { index["weight_map"]["a"] = "absent.safetensors"; });
  EXPECT_THAT(error(), HasSubstr("absent.safetensors"));
  change_index([](json& index) { index["weight_map"]["a"] = index["weight_map"]["c"]; });
  EXPECT_THAT(error(), HasSubstr("tensor a is missing"));
  change_index([](json& index) { index["weight_map"].erase("b"); });
  EXPECT_THAT(error(), HasSubstr("says nothing of b in model-00001-of-00003.safetensors"));
}

TEST(ShardedCheckpoint, LoadsAsAnyOther) {
  const testing::TemporaryDirectory folder;
  const Gpt model = testing::small_model();
  CheckpointContents contents;
  contents.config = &model.config();
  contents.weights = model_weights(model);
  save_checkpoint(folder / "one", contents);
  const LoadedModel one = load_model(folder / "one", at::kFloat);

  fs::create_directory(folder / "many");
  fs::copy_file(folder / "one/config.json", folder / "many/config.json");
  const auto names = write_weights(folder / "many", contents.weights, 20'000);
  ASSERT_GT(names.size(), 3U);
  for (const fs::path& path : {folder / "many", folder / "many/model.safetensors.index.json"}) {
    const LoadedModel many = load_model(path, at::kFloat);
    for (std::size_t i = 0; i < model.parameters().size(); ++i) {
      EXPECT_TRUE(at::equal(many.model->parameters()[i].value, one.model->parameters()[i].value));
    }
  }
  const CheckpointSummary summary = describe_checkpoint(folder / "many");
  EXPECT_EQ(summary.dtype, "F32");
  std::uintmax_t bytes = 0;
  for (std::size_t i = 0; i + 1 < names.size(); ++i) bytes += fs::file_size(folder / "many" / names[i]);
  EXPECT_EQ(summary.weight_bytes, bytes);

  fs::remove(folder / "many" / names[1]);
  try {
    load_model(folder / "many", at::kFloat);
    ADD_FAILURE() << "a file is missing";
  } catch (const CheckpointError& error) {
    EXPECT_THAT(error.what(), HasSubstr(names[1]));
  }
}

}  // namespace
}  // namespace nanochat
