#pragma once
// For tests only: a fixture that sends a request to an Api, says the tokens of the answer and returns the bytes that were
// written. Ids and times, which differ from answer to answer, are replaced by names.

#include <memory>
#include <regex>
#include <string>

#include <gtest/gtest.h>

#include "serving/api.h"
#include "serving/testing.h"

namespace nanochat::testing {

inline constexpr std::int32_t kPythonStartId = 261, kPythonEndId = 262, kOutputStartId = 263, kOutputEndId = 264;

class AnswerBytes : public ::testing::Test {
 protected:
  AnswerBytes() {
    const auto model = testing::fake_model(backend_);
    model->make_constraint = [](AnswerForm, const nlohmann::ordered_json&) { return nullptr; };
    model->has_tools = true;
    api_.set_model(model);
    backend_->manual = true;
  }
  ~AnswerBytes() override {
    if (exchange_) exchange_->let_go();
    backend_->let_go();
  }

  void post(const std::string& path, const std::string& body) {
    HttpRequest request{.method = "POST", .path = path, .query = {}, .headers = {}, .body = body, .client = "127.0.0.1"};
    exchange_ = std::make_shared<RecordingExchange>(std::move(request));
    api_.handle(exchange_);
  }
  void post_chat(const std::string& fields) {
    post("/v1/chat/completions", R"({"messages": [{"role": "user", "content": "Hi"}], )" + fields + "}");
  }
  void post_call(const std::string& fields) {
    post_chat(R"("tools": [{"type": "function", "function": {"name": "weather"}}], "tool_choice": "required", )" + fields);
  }
  void post_completion(const std::string& fields) { post("/v1/completions", "{" + fields + "}"); }

  // Tokens of one sequence; a client that reads in between gets a delta for each.
  void say(const std::string& text, std::int32_t sequence = 0, RequestId id = 1) {
    for (const char c : text) {
      backend_->token(id, static_cast<unsigned char>(c), sequence);
      exchange_->text();
    }
  }
  void calculate(const std::string& expression, const std::string& result) {
    const auto put = [&](std::int32_t token, bool forced) {
      backend_->token(1, token, 0, forced);
      exchange_->text();
    };
    put(kPythonStartId, false);
    for (const char c : expression) put(c, false);
    put(kPythonEndId, false);
    put(kOutputStartId, true);
    for (const char c : result) put(c, true);
    put(kOutputEndId, true);
  }
  void finish(FinishReason reason, std::int32_t sequence = 0, RequestId id = 1) { backend_->finish(id, reason, {}, sequence); }

  // All that was written.
  std::string bytes() {
    std::string text = exchange_->text();
    text = std::regex_replace(text, std::regex(R"("(chatcmpl|cmpl|call|msg|toolu|resp|fc)[-_][0-9a-f]{24}")"), "\"<$1>\"");
    return std::regex_replace(text, std::regex(R"re("(created|created_at|completed_at)":[0-9]+)re"), "\"$1\":<time>");
  }

  std::shared_ptr<FakeBackend> backend_ = std::make_shared<FakeBackend>();
  Api api_{ApiOptions{}};
  std::shared_ptr<RecordingExchange> exchange_;
};

}  // namespace nanochat::testing
