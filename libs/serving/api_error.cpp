#include "serving/api_error.h"

#include <algorithm>
#include <new>

#include <nlohmann/json.hpp>

#include "core/errors.h"
#include "core/format.h"
#include "core/log.h"

namespace nanochat {

namespace {

std::string limited(std::string message) {
  constexpr std::size_t kBegin = 1500, kEnd = 500;
  if (message.size() > kBegin + kEnd) message.replace(kBegin, message.size() - kBegin - kEnd, " ... ");
  std::replace(message.begin(), message.end(), '\0', ' ');  // what() would end there
  return message;
}

}  // namespace

ApiError::ApiError(int status, std::string type, std::string message, std::string param, std::string code)
    : std::runtime_error(limited(std::move(message))), status_(status), type_(std::move(type)), param_(std::move(param)),
      code_(std::move(code)) {}

std::string ApiError::message() const { return replace_invalid_utf8(what()); }

std::string ApiError::json() const {
  const auto or_null = [](const std::string& text) {
    return text.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(text);
  };
  nlohmann::ordered_json error;
  error["message"] = message();
  error["type"] = type_;
  error["param"] = or_null(param_);
  error["code"] = or_null(code_);
  return nlohmann::ordered_json{{"error", error}}.dump();
}

ApiError ApiError::with_header(std::string name, std::string value) && {
  headers_.emplace_back(std::move(name), std::move(value));
  return std::move(*this);
}

HttpResponse ApiError::response(std::string body) const {
  HttpResponse response{.status = status_, .headers = headers_, .body = std::move(body)};
  const bool has_time = std::any_of(headers_.begin(), headers_.end(),
                                    [](const auto& one) { return one.first == "Retry-After"; });
  if ((status_ == 429 || status_ == 503) && !has_time) response.headers.emplace_back("Retry-After", "1");
  if (status_ == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

ApiError current_api_error() {
  try {
    throw;
  } catch (const ApiError& error) {
    return error;
  } catch (const ConfigError& error) {
    return ApiError::invalid(error.what());
  } catch (const DataError& error) {
    return ApiError::invalid(error.what());
  } catch (const std::bad_alloc&) {
    log_error("a request was refused: out of memory");
    return ApiError::unavailable("out of memory");
  } catch (const OutOfMemoryError& error) {
    log_error("a request was refused: {}", error.what());
    return ApiError::unavailable("out of memory");
  } catch (const std::exception& error) {
    log_error("a request failed: {}", error.what());
  }
  return ApiError::internal("the server failed on this request; its log says why");
}

ApiError http_error(int status, std::string_view reason) {
  return {status, status >= 500 ? "server_error" : "invalid_request_error", std::string(reason)};
}

}  // namespace nanochat
