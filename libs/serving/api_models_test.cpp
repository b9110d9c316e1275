// Several models in one server, and models that are replaced while it answers.
#include <gmock/gmock.h>

#include <chrono>
#include <thread>

#include "serving/testing_api.h"

namespace nanochat {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using testing::ApiTest;
using ::testing::EndsWith;
using testing::FakeBackend;
using ::testing::HasSubstr;
using ::testing::StartsWith;

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

TEST_F(ModelsTest, AnErrorQuotesOddNames) {
  const std::string long_name = error(chat({{"model", std::string(1'000'000, 'x')}}))["message"];
  EXPECT_LT(long_name.size(), 2100u);
  EXPECT_THAT(long_name, AllOf(StartsWith("model: found \"xx"), HasSubstr("x ... x"), EndsWith("the model of this server")));
  const std::string zero = error(chat({{"model", std::string("a\0b", 3)}}))["message"];
  EXPECT_THAT(zero, AllOf(StartsWith("model: found \"a b\""), EndsWith("the model of this server")));
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

// Of models that are loaded on first use.
class LazyModelsTest : public ModelsTest {
 protected:
  LazyModelsTest() {
    options_.load = [this](const std::string& id, LoadDone done) {
      wanted_.push_back(id);
      waiting_.push_back(std::move(done));
    };
  }
  void describe_other() {
    call("GET", "/health");
    auto model = std::make_shared<ServedModel>();
    model->id = "other";
    model->created = 5;
    model->context = 100;
    api_->set_model(model);
  }
  void load_other() {
    other_->answer = "Other!";
    const auto model = testing::fake_model(other_);
    model->id = "other";
    model->memory_bytes = 1000;
    model->used = used_;
    api_->set_model(model);
    for (const LoadDone& done : std::exchange(waiting_, {})) done("");
  }
  json stats() { return json::parse(call("GET", "/stats")->text()); }
  std::vector<std::string> wanted_;
  std::vector<LoadDone> waiting_;
  std::shared_ptr<std::atomic<std::chrono::steady_clock::rep>> used_ =
      std::make_shared<std::atomic<std::chrono::steady_clock::rep>>(0);
};

TEST_F(LazyModelsTest, AreListedBeforeTheyAreLoaded) {
  describe_other();
  EXPECT_EQ(status(call("GET", "/health")), 200);
  const json models = json::parse(call("GET", "/v1/models")->text())["data"];
  ASSERT_EQ(models.size(), 2u);
  EXPECT_EQ(models[0]["loaded"], true);
  EXPECT_EQ(models[1]["loaded"], false);
  EXPECT_EQ(models[1]["max_model_len"], 100);
  EXPECT_EQ(json::parse(call("GET", "/v1/models/other")->text())["created"], 5);
  EXPECT_EQ(json::parse(call("POST", "/cache/invalidate", R"({"model": "other"})")->text())["invalidated_count"], 0);
  EXPECT_TRUE(wanted_.empty()) << "none of these is a use";
  EXPECT_EQ(stats()["models"], 2);
  EXPECT_EQ(stats()["models_loaded"], 1);
}

TEST_F(LazyModelsTest, ARequestWaitsForItsModel) {
  options_.limits.key_requests_per_minute = 2;  // it counts once
  describe_other();
  const auto first = chat({{"model", "other"}});
  const auto second = chat({{"model", "other"}, {"stream", true}});
  const auto tokens = call("POST", "/tokenize", R"({"model": "other", "content": "a"})");
  EXPECT_EQ(wanted_, std::vector<std::string>(3, "other"));
  EXPECT_EQ(status(first) + status(second) + status(tokens), 0);
  load_other();
  EXPECT_EQ(json::parse(first->text())["choices"][0]["message"]["content"], "Other!");
  EXPECT_THAT(second->text(), HasSubstr("[DONE]"));
  EXPECT_EQ(json::parse(tokens->text())["count"], 1);
  EXPECT_NE(used_->load(), 0);
  EXPECT_EQ(stats()["models_loaded"], 2);
  EXPECT_EQ(stats()["model_loads"], 2);
  EXPECT_EQ(stats()["model_bytes"], 1000);
}

TEST_F(LazyModelsTest, AStreamBeginsWhileItsModelIsLoaded) {
  describe_other();
  const auto stream = chat({{"model", "other"}, {"stream", true}});
  const auto whole = chat({{"model", "other"}});
  EXPECT_FALSE(whole->quiet) << "its status is not known yet";
  EXPECT_EQ(status(stream), 0);
  stream->quiet();
  EXPECT_EQ(status(stream), 200);
  EXPECT_THAT(stream->response->content_type, HasSubstr("text/event-stream"));
  EXPECT_EQ(stream->text(), "");
  EXPECT_FALSE(stream->ended);
  EXPECT_EQ(stream->response->stream->keep_alive(), ": keep-alive\n\n");
  load_other();
  const std::vector<json> sent = events(stream->text());
  ASSERT_EQ(sent.size(), 4u);
  EXPECT_EQ(sent[1]["choices"][0]["delta"]["content"], "Other!");
  EXPECT_EQ(sent[3], "[DONE]");
  EXPECT_TRUE(stream->ended);
  EXPECT_EQ(status(whole), 200);
}

TEST_F(LazyModelsTest, AStreamThatHasBegunEndsWithTheError) {
  describe_other();
  const auto chats = chat({{"model", "other"}, {"stream", true}});
  const auto message = call(
      "POST", "/v1/messages",
      R"({"model": "other", "max_tokens": 9, "stream": true, "messages": [{"role": "user", "content": "Hi"}]})");
  const auto response = call("POST", "/v1/responses", R"({"model": "other", "input": "Hi", "stream": true})");
  const auto too_long = complete({{"model", "other"}, {"stream", true}, {"prompt", std::string(5000, 'a')}});
  for (const auto& exchange : {chats, message, response, too_long}) exchange->quiet();
  for (std::size_t i = 0; i < 3; ++i) waiting_[i]("no file");
  waiting_.erase(waiting_.begin(), waiting_.begin() + 3);
  load_other();
  const std::string reason = R"("message":"model: \"other\" could not be loaded: no file")";
  EXPECT_THAT(chats->text(), AllOf(StartsWith("data: {\"error\":{"), HasSubstr(reason), EndsWith("data: [DONE]\n\n")));
  EXPECT_THAT(message->text(), AllOf(StartsWith("event: error\ndata: {\"type\":\"error\",\"error\":{"), HasSubstr(reason)));
  EXPECT_THAT(response->text(), AllOf(StartsWith("event: error\ndata: {\"type\":\"error\",\"code\":\"unavailable\","),
                                      HasSubstr(reason), HasSubstr(R"("param":null,"sequence_number":0)")));
  EXPECT_THAT(too_long->text(), HasSubstr("context_length_exceeded"));
  for (const auto& exchange : {chats, message, response, too_long}) EXPECT_TRUE(exchange->ended);
}

TEST_F(LazyModelsTest, AStreamDoesNotBeginTwice) {
  describe_other();
  const auto exchange = chat({{"model", "other"}, {"stream", true}});
  const auto late = exchange->quiet;  // a connection may call it while the model becomes ready
  other_->manual = true;
  load_other();
  late();
  EXPECT_EQ(status(exchange), 0);
  other_->token(1, 'a');
  EXPECT_THAT(exchange->text(), HasSubstr("\"a\""));
}

TEST_F(LazyModelsTest, AWrongRequestIsRefusedBeforeItsModelIsLoaded) {
  describe_other();
  EXPECT_EQ(status(chat({{"model", "other"}, {"temperature", "hot"}})), 400);
  EXPECT_EQ(status(chat({{"model", "third"}})), 404);
  EXPECT_TRUE(wanted_.empty());
}

TEST_F(LazyModelsTest, AClientThatLeavesWhileItWaitsIsNotAnswered) {
  describe_other();
  const auto left = chat({{"model", "other"}});
  left->end(499, 0);
  load_other();
  EXPECT_EQ(other_->submitted(), 0u);
}

TEST_F(LazyModelsTest, ARequestThatWaitsTooLongForItsModelEnds) {
  options_.limits.request_timeout = 0.05;
  describe_other();
  const auto whole = chat({{"model", "other"}});
  const auto stream = chat({{"model", "other"}, {"stream", true}});
  const auto begun = chat({{"model", "other"}, {"stream", true}});
  begun->quiet();
  const auto message = call(
      "POST", "/v1/messages",
      R"({"model": "other", "max_tokens": 9, "stream": true, "messages": [{"role": "user", "content": "Hi"}]})");
  message->quiet();
  const auto tokens = call("POST", "/tokenize", R"({"model": "other", "content": "a"})");
  backend_->manual = true;
  chat();  // came last, and so ends last
  for (int i = 0; i < 500 && backend_->cancelled().empty(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  ASSERT_EQ(backend_->cancelled().size(), 1u);
  for (const auto& exchange : {whole, stream, tokens}) {
    EXPECT_EQ(status(exchange), 504);
    EXPECT_EQ(error(exchange)["code"], "request_timeout");
    EXPECT_EQ(exchange->header("X-Should-Retry"), "false");
  }
  EXPECT_EQ(status(begun), 200);
  EXPECT_THAT(begun->text(),
              AllOf(StartsWith("data: {\"error\":{"), HasSubstr("\"code\":\"request_timeout\""), EndsWith("data: [DONE]\n\n")));
  EXPECT_THAT(message->text(), AllOf(StartsWith("event: error\ndata: {\"type\":\"error\","), HasSubstr("took longer than")));
  EXPECT_TRUE(begun->ended && message->ended);
  load_other();
  EXPECT_EQ(other_->submitted(), 0u) << "nobody waits for these answers";
}

TEST_F(LazyModelsTest, AWaitForTheModelEndsWithTheServer) {
  describe_other();
  const auto waiting = chat({{"model", "other"}});
  api_->set_draining();
  api_->end_answers();
  EXPECT_EQ(status(waiting), 503);
  EXPECT_THAT(error(waiting)["message"].get<std::string>(), HasSubstr("shutting down"));
  waiting_.front()("the server is shutting down");
  EXPECT_EQ(status(waiting), 503);
}

TEST_F(LazyModelsTest, AModelThatCannotBeLoadedIsAnError) {
  describe_other();
  const auto exchange = chat({{"model", "other"}});
  waiting_.front()("the log has the reason");
  EXPECT_EQ(status(exchange), 503);
  EXPECT_EQ(error(exchange)["message"], "model: \"other\" could not be loaded: the log has the reason");
  const auto message = call("POST", "/v1/messages",
                            R"({"model": "other", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]})");
  waiting_.back()("the log has the reason");
  EXPECT_EQ(json::parse(message->text())["type"], "error");
}

TEST_F(LazyModelsTest, AnUnloadedModelKeepsItsCounters) {
  describe_other();
  load_other();
  EXPECT_EQ(stats()["cache_hits"], 6);
  auto described = std::make_shared<ServedModel>();
  described->id = "other";
  api_->set_model(described);
  EXPECT_EQ(stats()["cache_hits"], 6) << "the engine finishes its last requests";
  api_->forget_engine(other_);
  EXPECT_EQ(stats()["cache_hits"], 6);
  api_->forget_engine(other_);
  EXPECT_EQ(stats()["cache_hits"], 6) << "once";
  EXPECT_EQ(stats()["model_unloads"], 1);
  EXPECT_EQ(stats()["models_loaded"], 1);
  chat({{"model", "other"}});
  EXPECT_EQ(wanted_, std::vector<std::string>{"other"});
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
