// Several models in one server, and models that are replaced while it answers.
#include <gmock/gmock.h>

#include "serving/testing_api.h"

namespace nanochat {
namespace {

using nlohmann::json;
using testing::ApiTest;
using testing::FakeBackend;
using ::testing::HasSubstr;

class ModelsTest : public ApiTest {
 protected:
  ~ModelsTest() override { other_->let_go(); }
  void add_other() {
    call("GET", "/health");  // makes the API with the first model
    other_->answer = "Other!";
    const auto model = testing::fake_model(other_);
    model->id = "other";
    api_->set_model(model);
  }
  std::string answer_of(const char* model) {
    const auto exchange = model == nullptr ? chat() : chat({{"model", model}});
    return json::parse(exchange->text())["choices"][0]["message"]["content"];
  }
  std::shared_ptr<FakeBackend> other_ = std::make_shared<FakeBackend>();
};

TEST_F(ModelsTest, ARequestChoosesItsModel) {
  add_other();
  EXPECT_EQ(answer_of(nullptr), "Hello!");
  EXPECT_EQ(answer_of("tiny"), "Hello!");
  EXPECT_EQ(answer_of("other"), "Other!");
  EXPECT_EQ(json::parse(chat({{"model", "other"}})->text())["model"], "other");
  EXPECT_EQ(json::parse(complete({{"model", "other"}, {"prompt", "a"}})->text())["choices"][0]["text"], "Other!");
  const auto message = call("POST", "/v1/messages",
                            R"({"model": "other", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]})");
  EXPECT_EQ(json::parse(message->text())["content"][0]["text"], "Other!");
  const auto response = call("POST", "/v1/responses", R"({"model": "other", "input": "Hi"})");
  EXPECT_THAT(response->text(), HasSubstr("Other!"));
  const auto unknown = chat({{"model", "third"}});
  EXPECT_EQ(status(unknown), 404);
  EXPECT_THAT(error(unknown)["message"].get<std::string>(), HasSubstr("expected \"tiny\" or \"other\""));
}

TEST_F(ModelsTest, AllAreListedAndCounted) {
  add_other();
  const json models = json::parse(call("GET", "/v1/models")->text())["data"];
  EXPECT_EQ(models.size(), 2u);
  EXPECT_EQ(models[1]["id"], "other");
  EXPECT_EQ(status(call("GET", "/v1/models/other")), 200);
  EXPECT_EQ(json::parse(call("GET", "/stats")->text())["cache_hits"], 6);
  EXPECT_EQ(json::parse(call("POST", "/cache/invalidate")->text())["invalidated_count"], 2);
  EXPECT_EQ(json::parse(call("POST", "/cache/invalidate", R"({"model": "other"})")->text())["invalidated_count"], 1);
  other_->is_ready = false;
  EXPECT_EQ(status(call("GET", "/health")), 503);
}

TEST_F(ModelsTest, AReplacedModelFinishesItsAnswers) {
  backend_->manual = true;
  const auto old = chat({{"stream", true}});
  backend_->token(1, 'a');
  EXPECT_THAT(old->text(), HasSubstr("\"a\""));
  other_->answer = "New!";
  api_->set_model(testing::fake_model(other_));  // of the same name
  EXPECT_EQ(answer_of(nullptr), "New!");
  EXPECT_EQ(json::parse(call("GET", "/v1/models")->text())["data"].size(), 1u);
  backend_->token(1, 'b');
  backend_->finish(1, FinishReason::kStop);
  backend_->done(1);
  EXPECT_THAT(old->text(), HasSubstr("[DONE]"));
}

TEST_F(ModelsTest, ReloadsWhenItIsAsked) {
  std::vector<std::string> replaced = {"tiny"};
  std::string failure;
  options_.reload = [&](const ReloadDone& done) { done(replaced, failure); };
  EXPECT_EQ(json::parse(call("POST", "/admin/reload")->text()), json({{"reloaded", {"tiny"}}}));
  EXPECT_EQ(status(call("POST", "/admin/reload", "", {{"origin", "https://evil.example"}})), 403);
  failure = "checkpoints/latest: no model";
  const auto failed = call("POST", "/admin/reload");
  EXPECT_EQ(status(failed), 500);
  EXPECT_THAT(error(failed)["message"].get<std::string>(), HasSubstr("no model"));
  options_.reload = {};
  api_.reset();
  EXPECT_EQ(status(call("POST", "/admin/reload")), 400);
}

}  // namespace
}  // namespace nanochat
