// The client against this project's server, whose engine answers as the test says, and against servers that misbehave.
#include "client/server_client.h"

#include <gmock/gmock.h>

#include "serving/api.h"
#include "serving/http_server.h"
#include "serving/testing.h"

namespace nanochat {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using testing::FakeBackend;
using ::testing::HasSubstr;

class ServerClientTest : public ::testing::Test {
 protected:
  ~ServerClientTest() override {
    if (server_) server_->stop();
    backend_->let_go();
  }
  // Starts a server with `options`, or one that answers everything with `fixed`.
  std::string start(const ApiOptions& options = {}) {
    api_ = std::make_unique<Api>(options);
    api_->set_model(testing::fake_model(backend_));
    return start([this](std::shared_ptr<HttpExchange> exchange) { api_->handle(exchange); });
  }
  std::string start(HttpHandler handler) {
    HttpServerOptions options;
    options.port = 0;
    server_ = std::make_unique<HttpServer>(options, std::move(handler), [](int status, std::string_view, const HttpRequest&) {
      return HttpResponse{.status = status};
    });
    server_->start();
    return "http://127.0.0.1:" + std::to_string(server_->port());
  }
  std::string start_fixed(HttpResponse fixed) {
    return start([fixed](std::shared_ptr<HttpExchange> exchange) { exchange->respond(fixed); });
  }
  static ordered_json chat_body() { return {{"messages", {{{"role", "user"}, {"content", "Hi"}}}}, {"max_tokens", 20}}; }

  std::shared_ptr<FakeBackend> backend_ = std::make_shared<FakeBackend>();
  std::unique_ptr<Api> api_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(ServerClientTest, StreamsAChat) {
  ServerClient client({.url = start() + "/v1/"});
  std::string shown;
  const ServerAnswer answer = client.chat(chat_body(), [&](std::string_view text) { shown += text; });
  EXPECT_EQ(answer.text, "Hello!");
  EXPECT_EQ(shown, "Hello!");
  EXPECT_EQ(answer.finish_reason, "stop");
  EXPECT_EQ(answer.prompt_tokens, 6);
  EXPECT_EQ(answer.completion_tokens, 5);
  EXPECT_GT(answer.first_seconds, 0.0);
  EXPECT_GE(answer.total_seconds, answer.first_seconds);
  EXPECT_EQ(client.complete({{"prompt", "a"}, {"max_tokens", 2}}).text, "He");
  EXPECT_EQ(client.complete({{"prompt", "a"}, {"max_tokens", 2}}).finish_reason, "length");
}

TEST_F(ServerClientTest, ShowsCalculationsWhereTheyWereMade) {
  const std::string events =
      "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n"
      "data: {\"choices\":[{\"delta\":{\"content\":\"\xc3\xa9: !\",\"nanochat_calculations\":"
      "[{\"index\":0,\"expression\":\"6*7\",\"result\":\"42\",\"offset\":3}]}}]}\n\n"
      "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
  ServerClient client({.url = start_fixed({.content_type = "text/event-stream", .body = events})});
  std::string shown;
  const ServerAnswer answer = client.chat(chat_body(), [&](std::string_view text) { shown += text; });
  EXPECT_EQ(answer.text, "\xc3\xa9: !");
  EXPECT_EQ(shown, "\xc3\xa9: <<6*7=42>>!");
  Conversation conversation;
  conversation.messages = {Message("user", "?"), Message("assistant", with_calculations(answer.text, answer.calculations))};
  EXPECT_EQ(json(api_messages(conversation)), json::parse(R"([{"role": "user", "content": "?"},
                            {"role": "assistant", "content": "é: !",
                             "nanochat_calculations": [{"expression": "6*7", "result": "42", "offset": 3}]}])"));
}

TEST_F(ServerClientTest, SaysWhatTheServerRefused) {
  backend_->context = 6;
  ServerClient client({.url = start()});
  try {
    client.chat(chat_body());
    FAIL() << "a prompt that fills the context";
  } catch (const ServerError& error) {
    EXPECT_EQ(error.status(), 400);
    EXPECT_EQ(error.api_code(), "context_length_exceeded");
    EXPECT_THAT(error.what(), HasSubstr("the server: messages: found 6 tokens"));
  }
}

TEST_F(ServerClientTest, SendsItsKey) {
  const std::string url = start({.api_keys = {"right"}});
  EXPECT_EQ(ServerClient({.url = url, .api_key = "right"}).chat(chat_body()).text, "Hello!");
  try {
    ServerClient({.url = url}).chat(chat_body());
    FAIL() << "no key";
  } catch (const ServerError& error) {
    EXPECT_EQ(error.status(), 401);
    EXPECT_THAT(error.what(), HasSubstr("set NANOCHAT_API_KEY"));
  }
}

TEST_F(ServerClientTest, EndsWhenItIsStopped) {
  backend_->manual = true;
  int polls = 0;
  ServerClient client({.url = start(), .stopped = [&] { return ++polls > 3; }});
  EXPECT_EQ(client.chat(chat_body()).finish_reason, "cancelled");
}

TEST_F(ServerClientTest, NamesTheAddressThatCannotBeReached) {
  ServerClient client({.url = "http://127.0.0.1:1"});
  EXPECT_THAT([&] { client.chat(chat_body()); }, ::testing::ThrowsMessage<IoError>(HasSubstr("http://127.0.0.1:1: ")));
  EXPECT_THROW(ServerClient({.url = "127.0.0.1:1"}), ConfigError);
}

TEST_F(ServerClientTest, DoesNotTakeACutOrForeignStreamForAnAnswer) {
  const auto ask = [&](const std::string& body) {
    ServerClient client({.url = start_fixed({.content_type = "text/event-stream", .body = body})});
    client.chat(chat_body());
  };
  EXPECT_THROW(ask("data: {\"choices\":[]}\n\n"), IoError);
  EXPECT_THROW(ask("data: <html>\n\n"), DataError);
  EXPECT_THROW(ask("data: {\"choices\": 5}\n\ndata: [DONE]\n\n"), DataError);
  EXPECT_THROW(ask("data: {\"error\": {\"message\": \"it failed\"}}\n\n"), ServerError);
  ServerClient client({.url = start_fixed({.status = 404, .content_type = "text/html", .body = "<h1>nothing</h1>"})});
  EXPECT_THAT([&] { client.chat(chat_body()); }, ::testing::ThrowsMessage<ServerError>(HasSubstr("status 404 <h1>nothing")));
}

}  // namespace
}  // namespace nanochat
