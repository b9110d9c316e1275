#pragma once
// For tests only: a fixture that sends requests to an Api whose engine answers as the test says.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "serving/api.h"
#include "serving/testing.h"

namespace nanochat::testing {

class ApiTest : public ::testing::Test {
 protected:
  using json = nlohmann::json;

  std::shared_ptr<FakeBackend> backend_ = std::make_shared<FakeBackend>();
  ApiOptions options_{.version = "1.2.3"};
  std::unique_ptr<Api> api_;
  std::function<std::unique_ptr<TokenConstraint>(AnswerForm, const nlohmann::ordered_json&)> make_constraint_;
  bool loaded_ = true;
  bool has_tools_ = true;
  std::vector<std::shared_ptr<RecordingExchange>> exchanges_;

  ~ApiTest() override {
    for (const auto& exchange : exchanges_) exchange->let_go();
    backend_->let_go();
  }
  std::shared_ptr<RecordingExchange> call(std::string method, std::string path, std::string body = {},
                                          HttpHeaders headers = {}) {
    if (!api_) {
      api_ = std::make_unique<Api>(options_);
      const auto model = fake_model(backend_);
      model->make_constraint = make_constraint_;
      model->has_tools = has_tools_;
      if (loaded_) api_->set_model(model);
    }
    HttpRequest request{.method = std::move(method),
                        .path = std::move(path),
                        .query = {},
                        .headers = std::move(headers),
                        .body = std::move(body),
                        .client = "127.0.0.1"};
    exchanges_.push_back(std::make_shared<RecordingExchange>(std::move(request)));
    const auto exchange = exchanges_.back();
    api_->handle(exchange);
    return exchange;
  }
  std::shared_ptr<RecordingExchange> chat(json extra = json::object()) {
    json body = {{"messages", {{{"role", "user"}, {"content", "Hi"}}}}};
    body.update(extra);
    return call("POST", "/v1/chat/completions", body.dump());
  }
  std::shared_ptr<RecordingExchange> complete(const json& body) { return call("POST", "/v1/completions", body.dump()); }

  static std::vector<json> events(const std::string& text) {
    std::vector<json> found;
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = text.find("\n\n", begin);
      const std::string event = text.substr(begin, end - begin);
      EXPECT_EQ(event.substr(0, 6), "data: ");
      found.push_back(event == "data: [DONE]" ? json("[DONE]") : json::parse(event.substr(6)));
      begin = end + 2;
    }
    return found;
  }
  static int status(const std::shared_ptr<RecordingExchange>& exchange) {
    return exchange->response ? exchange->response->status : 0;
  }
  static json error(const std::shared_ptr<RecordingExchange>& exchange) { return json::parse(exchange->text())["error"]; }
};

}  // namespace nanochat::testing
