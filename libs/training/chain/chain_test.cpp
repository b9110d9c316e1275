#include "training/chain/chain.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/errors.h"
#include "core/testing.h"

namespace nanochat {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::ThrowsMessage;

class Chains : public ::testing::Test {
 protected:
  Chain load(const std::string& text) {
    testing::write_text(folder_ / "chain.json", text);
    return load_chain(folder_ / "chain.json");
  }
  auto loading(const std::string& text) {
    return [this, text] { load(text); };
  }
  testing::TemporaryDirectory folder_;
};

TEST_F(Chains, AreReadWithTheirFolderFilledIn) {
  const Chain chain = load(R"({"name": "a", // a comment
    "hardware": {"name": "x", "gpu": false, "flops_per_second": 1e9},
    "steps": [{"name": "mid", "command": "midtrain", "plan": {"tokens": 5},
               "options": {"output_dir": "{run}/mid", "data_dir": ["{run}/x", "y"], "mixture": [{"task": "t", "path": "{run}/p"}], "num_epochs": 2}}]})");
  EXPECT_EQ(chain.folder, "runs/a");
  EXPECT_FALSE(chain.hardware.gpu);
  ASSERT_EQ(chain.steps.size(), 1U);
  const nlohmann::json& options = chain.steps[0].options;
  EXPECT_EQ(options.at("output_dir"), "runs/a/mid");
  EXPECT_EQ(options.at("data_dir"), nlohmann::json({"runs/a/x", "y"}));
  EXPECT_EQ(options.at("mixture"), R"([{"path":"runs/a/p","task":"t"}])") << "what is nested is handed on as text";
  EXPECT_EQ(options.at("num_epochs"), 2);
  EXPECT_EQ(chain.steps[0].plan.at("tokens"), 5);
}

TEST_F(Chains, SayWhatIsWrong) {
  EXPECT_THAT(loading("{"), ThrowsMessage<ConfigError>(HasSubstr("not JSON")));
  EXPECT_THAT(loading(R"({"steps": []})"), ThrowsMessage<ConfigError>(HasSubstr("\"name\" is missing")));
  EXPECT_THAT(loading(R"({"name": "a", "stpes": []})"), ThrowsMessage<ConfigError>(HasSubstr("unknown key \"stpes\"")));
  EXPECT_THAT(loading(R"({"name": "a", "steps": [{"name": "x"}]})"),
              ThrowsMessage<ConfigError>(AllOf(HasSubstr("step 1"), HasSubstr("\"command\""))));
  EXPECT_THAT(
      loading(
          R"({"name": "a", "steps": [{"name": "x", "command": "c", "options": {}}, {"name": "x", "command": "c", "options": {}}]})"),
      ThrowsMessage<ConfigError>(HasSubstr("two steps are named \"x\"")));
  EXPECT_THAT([] { load_chain("/nowhere.json"); }, ThrowsMessage<ConfigError>(HasSubstr("/nowhere.json")));
}

TEST_F(Chains, RememberWhatIsDoneAndWithWhichOptions) {
  Chain chain{"a", folder_ / "run", {}, {{"one", "data toy", {{"bytes", 5}}, {}}, {"two", "pretrain", {{"depth", 4}}, {}}}};
  {
    ChainRecord record(chain);
    EXPECT_FALSE(record.done(chain.steps[0]));
    record.mark_done(chain.steps[0], 1.5);
    EXPECT_TRUE(record.done(chain.steps[0]));
  }
  const ChainRecord record(chain);
  EXPECT_TRUE(record.done(chain.steps[0]));
  EXPECT_FALSE(record.done(chain.steps[1]));
  chain.steps[0].options["bytes"] = 6;
  EXPECT_THAT([&] { record.done(chain.steps[0]); }, ThrowsMessage<ConfigError>(HasSubstr("bytes: 5 → 6")));
}

TEST_F(Chains, GoOnWhereAStepStopped) {
  const auto step = [&](const char* command, const fs::path& output) {
    return ChainStep{"x", command, {{"output_dir", output.string()}}, {}};
  };
  EXPECT_THAT(resume_flags(step("sft", folder_ / "sft")), IsEmpty());
  fs::create_directories(folder_ / "sft");
  testing::write_text(folder_ / "sft" / "config.json", "{}");
  EXPECT_THAT(resume_flags(step("sft", folder_ / "sft")), ElementsAre("--resume", "latest"));
  EXPECT_THAT(resume_flags(step("data prepare", folder_ / "sft")), ElementsAre("--resume"));
  EXPECT_THAT(resume_flags(step("data toy", folder_ / "sft")), IsEmpty());
  EXPECT_THAT(resume_flags({"x", "data download", {{"set", "arc"}}, {}}), IsEmpty());
}

}  // namespace
}  // namespace nanochat
