// A session with a format of the test's own: what a format is told, and when. A format may write nothing or several events at
// any of its calls, and may keep state between them.
#include "serving/internal/answer_session.h"

#include <spdlog/fmt/fmt.h>
#include <gmock/gmock.h>

#include <chrono>
#include <string>
#include <thread>

#include "serving/testing.h"

namespace nanochat {
namespace {

using testing::FakeBackend;
using testing::RecordingExchange;

// Numbers its events, writes the text of an answer two characters at a time, and closes what it opened.
class NumberedFormat : public AnswerFormat {
 public:
  std::string whole(std::span<const ChoicePart> choices, const EngineUsage& usage) override {
    std::string all;
    for (const ChoicePart& one : choices) all += fmt::format("[{}]", one.text);
    return fmt::format("{} {}", all, usage.completion_tokens);
  }
  void begin(const ChoicePart& part, const EngineUsage&, std::string& out) override {
    event(out, fmt::format("open {}", part.index));
    if (part.tool_choice == ToolChoice::kRequired) event(out, "call");
  }
  void delta(const ChoicePart& part, const EngineUsage&, std::string& out) override {
    text_ += part.text;
    while (text_.size() >= 2) {
      event(out, text_.substr(0, 2));
      text_.erase(0, 2);
    }
    for (const AnswerToken& one : part.tokens) event(out, fmt::format("token {}", one.token.id));
    for (const ToolCallPart& call : part.calls) event(out, fmt::format("{} {}({})", call.index, call.name, call.arguments));
    for (const AnswerCalculation& one : part.calculations) event(out, fmt::format("{}={}", one.expression, one.result));
  }
  void finish(const ChoicePart& part, const EngineUsage&, std::string& out) override {
    if (!text_.empty()) event(out, std::exchange(text_, {}));
    event(out, fmt::format("close {} {} {}", part.index, name_of(*part.end), part.stop_string));
  }
  void end(const EngineUsage& usage, std::string& out) override { event(out, fmt::format("end {}", usage.completion_tokens)); }
  void fail(const ApiError& error, std::string& out) override { event(out, fmt::format("failed {}", error.what())); }
  HttpResponse failure(const ApiError& error) const override { return {.status = error.status(), .body = "failed"}; }

 private:
  void event(std::string& out, const std::string& text) { out += fmt::format("{}:{}\n", ++number_, text); }
  int number_ = 0;
  std::string text_;
};

class AnswerSessionTest : public ::testing::Test {
 protected:
  AnswerSessionTest() { backend_->manual = true; }
  ~AnswerSessionTest() override {
    if (session_ == nullptr) return;
    exchange_->let_go();
    backend_->let_go();
  }
  static AnswerPlan plan(bool stream) {
    AnswerPlan plan{.format = std::make_unique<NumberedFormat>(), .stream = stream};
    plan.prompts.emplace_back();
    return plan;
  }
  void start(AnswerPlan plan) {
    plan.served = testing::fake_model(backend_);
    session_ = std::make_shared<AnswerSession>(metrics_, exchange_, std::move(plan));
    session_->start();
  }
  void say(const std::string& text) {
    for (const char c : text) backend_->token(1, static_cast<unsigned char>(c));
  }
  void finish(FinishReason reason) {
    backend_->finish(1, reason);
    backend_->done(1);
  }

  std::shared_ptr<ServerMetrics> metrics_ = std::make_shared<ServerMetrics>();
  std::shared_ptr<FakeBackend> backend_ = std::make_shared<FakeBackend>();
  std::shared_ptr<RecordingExchange> exchange_ = std::make_shared<RecordingExchange>(HttpRequest{});
  std::shared_ptr<AnswerSession> session_;
};

TEST_F(AnswerSessionTest, AFormatMayWriteNothingOrSeveralEvents) {
  start(plan(true));
  say("a");
  EXPECT_EQ(exchange_->text(), "1:open 0\n");
  say("bcde");
  EXPECT_EQ(exchange_->text(), "1:open 0\n2:ab\n3:cd\n");
  finish(FinishReason::kLength);
  EXPECT_EQ(exchange_->text(), "1:open 0\n2:ab\n3:cd\n4:e\n5:close 0 length \n6:end 5\n");
  EXPECT_TRUE(exchange_->ended);
}

// A session begins when its model has been loaded.
TEST_F(AnswerSessionTest, TheTimeToTheFirstTokenBeginsWithTheArrivalOfTheRequest) {
  constexpr std::chrono::milliseconds kWait(30);
  std::this_thread::sleep_for(kWait);
  start(plan(true));
  say("a");
  const std::string text = metrics_->prometheus(nullptr, {}, {}), name = "nanochat_time_to_first_token_seconds_sum ";
  ASSERT_THAT(text, ::testing::HasSubstr(name));
  EXPECT_GE(std::stod(text.substr(text.find(name) + name.size())), std::chrono::duration<double>(kWait).count());
}

TEST_F(AnswerSessionTest, AnAnswerWithoutTextIsOpenedAndClosed) {
  start(plan(true));
  finish(FinishReason::kStop);
  EXPECT_EQ(exchange_->text(), "1:open 0\n2:close 0 stop \n3:end 5\n");
}

TEST_F(AnswerSessionTest, AFormatIsToldTheStopString) {
  AnswerPlan stopping = plan(true);
  stopping.stop = {"END", "cd"};
  start(std::move(stopping));
  say("abcd");
  finish(FinishReason::kStop);
  EXPECT_EQ(exchange_->text(), "1:open 0\n2:ab\n3:close 0 stop cd\n4:end 5\n");
}

TEST_F(AnswerSessionTest, AFormatIsGivenTokensWhereThePlanAsksForThem) {
  AnswerPlan scored = plan(true);
  scored.logprobs = true;
  start(std::move(scored));
  say("a");
  EXPECT_EQ(exchange_->text(), "1:open 0\n2:token 97\n");
}

TEST_F(AnswerSessionTest, AFormatIsGivenCallsInPieces) {
  AnswerPlan call = plan(true);
  call.tool_choice = ToolChoice::kRequired;
  call.call_beginning = std::make_shared<const ByteDfa>(call_beginning({{"f", {}, ""}}));
  start(std::move(call));
  say(R"({"name":"f","arguments":)");
  EXPECT_EQ(exchange_->text(), "1:open 0\n2:call\n3:0 f()\n");
  say("{}}");
  finish(FinishReason::kStop);
  EXPECT_THAT(exchange_->text(), ::testing::EndsWith("4:0 ({})\n5:close 0 tool_calls \n6:end 5\n"));
}

TEST_F(AnswerSessionTest, CallsAreFoundInTheText) {
  AnswerPlan calls = plan(true);
  calls.tool_choice = ToolChoice::kAuto;
  calls.call_beginning = std::make_shared<const ByteDfa>(call_beginning({{"f", {}, ""}, {"g", {}, ""}}));
  start(std::move(calls));
  say("OK\n{\"na");
  EXPECT_EQ(exchange_->text(), "1:open 0\n2:OK\n");  // the rest may be a call
  say("me\": \"f\", \"arguments\": {\"a\": 1}}\n{\"name\":\"g\",\"arguments\":{}}");
  EXPECT_THAT(exchange_->text(), ::testing::EndsWith("3:0 f({\"a\": 1})\n4:1 g({})\n"));
  finish(FinishReason::kStop);
  EXPECT_THAT(exchange_->text(), ::testing::HasSubstr("close 0 tool_calls"));
}

TEST_F(AnswerSessionTest, TextThatOnlyLooksLikeACallIsText) {
  AnswerPlan calls = plan(false);
  calls.tool_choice = ToolChoice::kAuto;
  calls.call_beginning = std::make_shared<const ByteDfa>(call_beginning({{"f", {}, ""}}));
  start(std::move(calls));
  say("{\"name\":\"h\"}\n{\"name\"");
  finish(FinishReason::kStop);
  EXPECT_THAT(exchange_->text(), ::testing::StartsWith("[{\"name\":\"h\"}\n{\"name\"]"));
}

TEST_F(AnswerSessionTest, AFailureEndsAStream) {
  start(plan(true));
  say("a");
  exchange_->text();
  backend_->finish(1, FinishReason::kError, "logit is NaN");
  EXPECT_EQ(exchange_->text(), "1:open 0\n2:failed logit is NaN\n");
  EXPECT_TRUE(exchange_->ended);
}

TEST_F(AnswerSessionTest, AFailureBeforeTheAnswerIsAResponse) {
  start(plan(true));
  backend_->finish(1, FinishReason::kError, "logit is NaN");
  EXPECT_EQ(exchange_->response->status, 500);
  EXPECT_EQ(exchange_->text(), "failed");
}

TEST_F(AnswerSessionTest, AWholeAnswerIsWrittenAtOnce) {
  AnswerPlan two = plan(false);
  two.n = 2;
  two.prompts.front().request.n = 2;
  two.prompts.front().echo = "> ";
  start(std::move(two));
  say("ab");
  backend_->finish(1, FinishReason::kStop);
  EXPECT_FALSE(exchange_->response);
  backend_->finish(1, FinishReason::kStop, {}, 1);
  backend_->done(1);
  EXPECT_EQ(exchange_->text(), "[> ab][> ] 5");
  EXPECT_EQ(session_->outcome().finish_reasons, "stop,stop");
}

}  // namespace
}  // namespace nanochat
