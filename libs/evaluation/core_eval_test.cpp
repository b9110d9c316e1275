#include "evaluation/core_eval.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "checkpoint/checkpoint.h"
#include "core/errors.h"
#include "core/progress.h"
#include "core/testing.h"
#include "evaluation/testing_bytes.h"
#include "model/testing.h"
#include "tokenizer/load.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;

// Mean losses against those that the reference computed with the same weights, rounding of float32 apart.
constexpr double kLossTolerance = 1e-3;

TEST(CoreEvaluation, AgreesWithTheReferenceOnATinyModel) {
  NANOCHAT_SHARED_OR_SKIP(goldens, "parity/goldens/core_tiny_model.json");
  NANOCHAT_SHARED_OR_SKIP(weights, "parity/gqa_l4_d128/final.safetensors");
  NANOCHAT_SHARED_OR_SKIP(ranks, "data/tokenizers/rustbpe_train/tinyshakespeare_v1024.tiktoken");
  NANOCHAT_SHARED_OR_SKIP(bundle, "data/core");
  const auto model = load_model(weights, at::kFloat).model;
  // The fixture's BOS is id 0, an ordinary token.
  class WithBos : public Tokenizer {
   public:
    explicit WithBos(std::shared_ptr<const Tokenizer> inner) : inner_(std::move(inner)) {}
    std::string_view type() const override { return "bpe"; }
    std::int64_t vocab_size() const override { return inner_->vocab_size() + 1; }
    void encode(std::string_view text, std::vector<TokenId>& ids) const override { inner_->encode(text, ids); }
    std::string_view token_bytes(TokenId id) const override { return inner_->token_bytes(id); }
    const std::vector<std::string>& special_tokens() const override { return special_; }
    void save(const std::filesystem::path&) const override {}

   private:
    std::shared_ptr<const Tokenizer> inner_;
    std::vector<std::string> special_{"<|bos|>"};
  };
  const WithBos tokenizer(load_tokenizer(ranks, {.pattern = "", .special = "none"}));

  std::ifstream stream(goldens);
  const nlohmann::json golden = nlohmann::json::parse(stream);
  double worst = 0.0;
  std::int64_t verdicts = 0;
  for (const nlohmann::json& expected : golden) {
    for (CoreTask task : read_core_bundle(bundle)) {
      if (task.label != expected.at("task").get<std::string>()) continue;
      const auto uri = std::filesystem::relative(task.file, bundle / "eval_data");
      task.file = bundle / "slice" / (uri.extension() == ".gz" ? uri.parent_path() / uri.stem() : uri);
      const std::vector<CoreRow> rows = read_core_rows(task);
      std::vector<Question> questions;
      std::vector<std::size_t> golds;
      for (const nlohmann::json& row : expected.at("rows")) {
        const std::size_t index = row.at("index");
        Question question;
        question.options = core_prompts(tokenizer, task, rows, index, longest_prompt(*model)).options;
        for (PromptSpan& option : question.options) option.tokens.front() = 0;
        questions.push_back(std::move(question));
        golds.push_back(rows[index].gold);
      }
      score_questions(*model, questions, {}, [&](std::size_t q, const std::vector<SpanScore>& scores) {
        const nlohmann::json& row = expected.at("rows").at(q);
        const bool spoken = task.type == CoreTaskType::kLanguageModeling;
        EXPECT_EQ(spoken ? scores.front().greedy : best_option(scores) == golds[q], row.at("correct").get<bool>())
            << task.label << " " << q;
        ++verdicts;
        if (!row.contains("mean_losses")) return;
        for (std::size_t i = 0; i < scores.size(); ++i) {
          const double difference = std::abs(scores[i].mean_loss - row["mean_losses"].at(i).get<double>());
          worst = std::max(worst, difference);
          EXPECT_LE(difference, kLossTolerance) << task.label << " " << q;
        }
      });
    }
  }
  std::printf("%ld verdicts, largest difference of a mean loss %.1e\n", static_cast<long>(verdicts), worst);
  EXPECT_GT(verdicts, 20);
}

class CoreTasks : public ::testing::Test {
 protected:
  CoreTasks() {
    std::string rows;
    for (int i = 0; i < 30; ++i) {
      rows += nlohmann::json{{"query", "q" + std::to_string(i)}, {"choices", {"yes", "no", "maybe"}}, {"gold", i % 3}}.dump() +
              "\n";
    }
    testing::write_text(folder_ / "mc.jsonl", rows);
    testing::write_text(folder_ / "bad.jsonl", "{\"query\":\"q\",\"choices\":[\"a\"]}\n");
    good_.label = "good";
    good_.file = folder_ / "mc.jsonl";
    good_.num_fewshot = 2;
    good_.random_baseline = 1.0 / 3.0;
    bad_ = good_;
    bad_.label = "bad";
    bad_.file = folder_ / "bad.jsonl";
  }
  static Gpt make_model() {
    GptConfig config = GptConfig::from_depth(1, 257, 16);
    return testing::random_model(config, at::kFloat, 11);
  }
  testing::TemporaryDirectory folder_;
  CoreTask good_, bad_;
  Gpt model_ = make_model();
  testing::ByteTokenizer tokenizer_;
  SilentProgress progress_;
};

TEST_F(CoreTasks, OneBadTaskDoesNotStopTheOthers) {
  ExampleStore store;
  CoreTask unknown = good_;
  unknown.label = "unknown";
  unknown.random_baseline.reset();
  const auto results = evaluate_core(model_, tokenizer_, {bad_, unknown, good_}, {}, store, progress_);
  ASSERT_EQ(results.size(), 3U);
  EXPECT_THAT(results[0].error, HasSubstr("bad.jsonl:1: the row has no \"gold\""));
  EXPECT_THAT(results[1].error, HasSubstr("no random baseline"));
  EXPECT_TRUE(results[2].ok());
  EXPECT_EQ(results[2].counts.total, 30);
}

TEST_F(CoreTasks, ResumesAndShardsToTheSameVerdicts) {
  ExampleStore whole;
  CoreOptions options;
  options.save_samples = true;
  const auto all = evaluate_core(model_, tokenizer_, {good_}, options, whole, progress_).front();

  const testing::TemporaryDirectory output;
  for (int rank = 0; rank < 2; ++rank) {
    ExampleStore store(output.path(), {}, false, rank, 2);
    options.rank = rank;
    options.world = 2;
    const auto share = evaluate_core(model_, tokenizer_, {good_}, options, store, progress_).front();
    EXPECT_EQ(share.counts.total, 15);
    EXPECT_THAT(share.notes, ::testing::Contains("15 of 30 examples"));
  }
  options.rank = 0;
  options.world = 1;
  ExampleStore together(output.path(), {}, true);
  const auto sum = evaluate_core(model_, tokenizer_, {good_}, options, together, progress_).front();
  EXPECT_EQ(sum.counts, all.counts);
  EXPECT_GT(all.counts.correct, 0);
  for (const auto& [index, example] : whole.of("core/good")) {
    EXPECT_EQ(together.of("core/good").at(index).at("chosen"), example.at("chosen")) << index;
  }
}

TEST_F(CoreTasks, CountsPromptsThatWereCut) {
  ExampleStore store;
  CoreOptions options;
  options.max_prompt_tokens = 16;
  options.max_per_task = 5;
  const auto result = evaluate_core(model_, tokenizer_, {good_}, options, store, progress_).front();
  EXPECT_EQ(result.counts.total, 5);
  EXPECT_THAT(result.notes, ::testing::ElementsAre("5 prompts cut on the left"));
}

}  // namespace
}  // namespace nanochat
