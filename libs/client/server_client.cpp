#include "client/server_client.h"

#include <chrono>
#include <optional>

#include <spdlog/fmt/fmt.h>

#include "client/event_stream.h"
#include "core/elapsed.h"
#include "core/format.h"
#include "core/utf8.h"
#include "download/transfer.h"

namespace nanochat {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kMaxErrorBytes = 64 << 10;
// The server sends at least a comment every ten seconds.
constexpr TransferLimits kLimits{.stall_seconds = 120, .min_bytes_per_second = 1, .max_redirects = 0};

// Without the slash at its end and without /v1.
std::string base_url(std::string url) {
  if (!url.starts_with("http://") && !url.starts_with("https://")) {
    throw ConfigError(fmt::format("server: found \"{}\", expected a URL such as http://127.0.0.1:8000", url));
  }
  while (url.ends_with('/')) url.pop_back();
  if (url.ends_with("/v1")) url.resize(url.size() - 3);
  return url;
}

// The error in a body or an event: {"error": {"message", "code"}}, or else the text itself.
ServerError error_of(int status, const std::string& text) {
  const json body = json::parse(text, nullptr, false);
  const json error = body.is_object() && body.contains("error") ? body["error"] : json();
  const auto member = [&](const char* name) {
    return error.is_object() && error.contains(name) && error[name].is_string() ? error[name].get<std::string>()
                                                                                : std::string();
  };
  std::string message = member("message");
  if (message.empty()) message = fmt::format("status {} {}", status, replace_invalid_utf8(text.substr(0, 200)));
  if (status == 401) message += "; set NANOCHAT_API_KEY or --api-key";
  return {status, member("code"), "the server: " + message};
}

}  // namespace

class ServerClient::Impl {
 public:
  explicit Impl(ServerOptions options) : options_(std::move(options)), base_(base_url(options_.url)), transfer_(kLimits) {}

  ServerAnswer ask(const std::string& path, ordered_json body, const OnText& on_text) {
    body["stream"] = true;
    body["stream_options"] = {{"include_usage", true}};
    TransferRequest request{.url = base_ + path, .body = body.dump(-1, ' ', false, json::error_handler_t::replace)};
    request.headers = {"Content-Type: application/json", "Accept: text/event-stream"};
    if (!options_.api_key.empty()) request.headers.push_back("Authorization: Bearer " + options_.api_key);

    answer_ = {};
    characters_ = 0;
    done_ = false;
    begin_ = Clock::now();
    EventStream events;
    std::string error_body;
    TransferHandlers handlers;
    TransferResponse response;
    handlers.response = [](const TransferResponse&) { return true; };
    handlers.stopped = [this] { return options_.stopped && options_.stopped(); };
    handlers.body = [&](const char* data, std::size_t bytes) {
      if (response.status != 200) {
        error_body.append(data, std::min(bytes, kMaxErrorBytes - std::min(error_body.size(), kMaxErrorBytes)));
        return true;
      }
      for (const std::string& event : events.push({data, bytes})) take_event(event, on_text);
      return true;
    };
    const TransferEnd end = transfer_.perform(request, handlers, response);
    answer_.total_seconds = seconds_since(begin_);
    if (end.kind == TransferEnd::Kind::kStopped) {
      answer_.finish_reason = "cancelled";
      return std::move(answer_);
    }
    if (end.kind != TransferEnd::Kind::kComplete) throw IoError(fmt::format("{}: {}", base_, end.reason));
    if (response.status != 200) throw error_of(static_cast<int>(response.status), error_body);
    if (!done_) throw IoError(fmt::format("{}: the stream ended before its last event", base_));
    return std::move(answer_);
  }

 private:
  void take_event(const std::string& data, const OnText& on_text) {
    if (data == "[DONE]") {
      done_ = true;
      return;
    }
    const json event = json::parse(data, nullptr, false);
    if (!event.is_object()) {
      throw DataError(fmt::format("{}: found an event that is not a JSON object: {}", base_,
                                  replace_invalid_utf8(data.substr(0, 200))));
    }
    if (event.contains("error")) throw error_of(200, data);
    try {
      if (event.contains("usage") && event["usage"].is_object()) {
        answer_.prompt_tokens = event["usage"].value("prompt_tokens", std::int64_t{0});
        answer_.completion_tokens = event["usage"].value("completion_tokens", std::int64_t{0});
      }
      for (const json& choice : event.value("choices", json::array())) take_choice(choice, on_text);
    } catch (const json::exception& error) {
      throw DataError(fmt::format("{}: found an event that is not of this protocol: {}", base_, error.what()));
    }
  }

  void take_choice(const json& choice, const OnText& on_text) {
    if (choice.contains("finish_reason") && choice["finish_reason"].is_string()) {
      answer_.finish_reason = choice["finish_reason"].get<std::string>();
    }
    const json& part = choice.contains("delta") ? choice["delta"] : choice;
    const char* name = choice.contains("delta") ? "content" : "text";
    std::string text = part.contains(name) && part[name].is_string() ? part[name].get<std::string>() : std::string();
    for (const json& entry : part.value("nanochat_calculations", json::array())) {
      Calculation calculation{entry.at("expression").get<std::string>(), entry.at("result").get<std::string>(),
                              entry.at("offset").get<std::int64_t>()};
      std::size_t before = 0;  // bytes of `text` that stand before the calculation
      for (std::int64_t at = characters_; at < calculation.offset && before < text.size(); ++at) {
        before += std::max<std::size_t>(utf8::character_length(std::string_view(text).substr(before)), 1);
      }
      add_text(text.substr(0, before), on_text);
      text.erase(0, before);
      show(fmt::format("<<{}={}>>", calculation.expression, calculation.result), on_text);
      answer_.calculations.push_back(std::move(calculation));
    }
    add_text(text, on_text);
  }

  void add_text(const std::string& text, const OnText& on_text) {
    if (text.empty()) return;
    answer_.text += text;
    characters_ += utf8::count_characters(text);
    show(text, on_text);
  }

  void show(std::string_view text, const OnText& on_text) {
    if (answer_.first_seconds == 0.0) answer_.first_seconds = seconds_since(begin_);
    if (on_text) on_text(text);
  }

  const ServerOptions options_;
  const std::string base_;
  Transfer transfer_;
  // Of the answer that streams.
  ServerAnswer answer_;
  std::int64_t characters_ = 0;  // of its text
  bool done_ = false;            // the last event has come
  Clock::time_point begin_;
};

ServerClient::ServerClient(ServerOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
ServerClient::~ServerClient() = default;

ServerAnswer ServerClient::chat(ordered_json body, const OnText& on_text) {
  return impl_->ask("/v1/chat/completions", std::move(body), on_text);
}

ServerAnswer ServerClient::complete(ordered_json body, const OnText& on_text) {
  return impl_->ask("/v1/completions", std::move(body), on_text);
}

ordered_json api_messages(const Conversation& conversation) {
  ordered_json messages = ordered_json::array();
  for (const Message& message : conversation.messages) {
    ordered_json object = {{"role", message.role}, {"content", replace_invalid_utf8(message.joined_text())}};
    for (const Calculation& calculation : calculations_of(message.parts)) {
      object["nanochat_calculations"].push_back(
          {{"expression", calculation.expression}, {"result", calculation.result}, {"offset", calculation.offset}});
    }
    messages.push_back(std::move(object));
  }
  return messages;
}

}  // namespace nanochat
