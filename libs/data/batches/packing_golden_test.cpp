// Rows that the reference at 92d63d4 makes of documents and conversations of known lengths, one for one.

#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "core/testing.h"
#include "data/batches/batch_maker.h"
#include "data/batches/conversation_loader.h"

namespace nanochat {
namespace {

using nlohmann::json;
using Tokens = std::vector<std::int32_t>;

json read_json(const std::filesystem::path& path) {
  std::ifstream stream(path);
  return json::parse(stream);
}

// Document k, from 1, is its number k, length - 1 times; BOS is the loader's.
class Numbered : public TokenSource {
 public:
  explicit Numbered(std::vector<std::size_t> lengths) : lengths_(std::move(lengths)) {}
  void seek(std::int64_t, std::uint64_t document) override { next_ = document; }
  bool next(Tokens& tokens, const std::stop_token&) override {
    if (next_ >= lengths_.size()) return false;
    tokens.assign(lengths_[next_] - 1, static_cast<std::int32_t>(next_ + 1));
    ++next_;
    return true;
  }

 private:
  std::vector<std::size_t> lengths_;
  std::uint64_t next_ = 0;
};

TEST(PackingGolden, CroppedRowsAreTheReferences) {
  NANOCHAT_SHARED_OR_SKIP(goldens, "parity/head_goldens/pretrain_packing.json");
  std::size_t compared = 0;
  for (const json& golden : read_json(goldens)) {
    LoaderOptions options;
    options.packing = Packing::kBestFitCrop;
    options.rows = golden.at("B");
    options.sequence_len = golden.at("T");
    options.buffer_documents = golden.at("buffer_size");
    options.refill_documents = golden.at("documents_per_batch");
    options.shuffle = false;
    std::vector<std::size_t> lengths;
    for (const json& batch : golden.at("document_lengths")) {
      ASSERT_EQ(batch.size(), options.refill_documents);
      lengths.insert(lengths.end(), batch.begin(), batch.end());
    }
    const auto make = [&](const LoaderPosition& position) {
      return make_batch_maker(std::make_unique<Numbered>(lengths), golden.at("bos").get<std::int32_t>(), options, position);
    };
    const auto maker = make({});
    json position = to_json(maker->position(), options);
    for (const json& expected : golden.at("batches")) {
      TokenBatch batch, resumed;
      const auto continued = make(parse_position(position, options));
      ASSERT_TRUE(maker->make(batch, {}));
      ASSERT_TRUE(continued->make(resumed, {}));
      Tokens inputs, targets;
      for (const json& row : expected.at("rows")) {
        const auto tokens = row.get<Tokens>();
        inputs.insert(inputs.end(), tokens.begin(), tokens.end() - 1);
        targets.insert(targets.end(), tokens.begin() + 1, tokens.end());
        ++compared;
      }
      EXPECT_EQ(batch.inputs, inputs);
      EXPECT_EQ(batch.targets, targets);
      EXPECT_EQ(resumed.inputs, inputs) << "resumed";
      EXPECT_EQ(resumed.targets, targets);
      position = to_json(maker->position(), options);
      const auto refills = maker->position().document / options.refill_documents;
      EXPECT_EQ(refills, expected.at("state").at("rg_idx").get<std::uint64_t>() + 1) << "as many documents have been read";
    }
  }
  EXPECT_EQ(compared, 18U + 16U + 8U);
}

TEST(PackingGolden, RowsOfConversationsAreTheReferences) {
  NANOCHAT_SHARED_OR_SKIP(goldens, "parity/head_goldens/sft_packing.json");
  std::size_t compared = 0;
  for (const json& golden : read_json(goldens)) {
    const auto conversations = std::make_shared<RenderedConversations>();
    for (const json& conversation : golden.at("conversations")) {
      const auto ids = conversation.at("ids").get<std::vector<TokenId>>();
      const auto mask = conversation.at("mask").get<std::vector<std::uint8_t>>();
      conversations->add({.ids = ids, .mask = mask, .excluded = {}, .whole_length = ids.size()});
    }
    ConversationLoaderOptions options;
    options.packing = ConversationPacking::kBestFitPad;
    options.rows = golden.at("B");
    options.sequence_len = golden.at("T");
    options.buffer_conversations = golden.at("buffer_size");
    options.padding_id = golden.at("bos");
    options.shuffle = false;
    const auto loader = make_conversation_loader(conversations, options, nullptr);
    for (const json& expected : golden.at("batches")) {
      TokenBatch batch, resumed;
      const auto continued = make_conversation_loader(conversations, options, json::parse(loader->position().dump()));
      ASSERT_TRUE(loader->next(batch));
      ASSERT_TRUE(continued->next(resumed));
      Tokens inputs, targets;
      for (std::size_t row = 0; row < expected.at("inputs").size(); ++row) {
        for (const json& id : expected.at("inputs").at(row)) inputs.push_back(id.get<std::int32_t>());
        for (const json& id : expected.at("targets").at(row)) targets.push_back(id.get<std::int32_t>());
        ++compared;
      }
      EXPECT_EQ(batch.inputs, inputs);
      EXPECT_EQ(batch.targets, targets);
      EXPECT_EQ(resumed.inputs, inputs) << "resumed";
      EXPECT_EQ(resumed.targets, targets);
    }
  }
  EXPECT_EQ(compared, 33U + 12U);
}

}  // namespace
}  // namespace nanochat
