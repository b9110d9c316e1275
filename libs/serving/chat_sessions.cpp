#include "serving/internal/chat_sessions.h"

#include <algorithm>
#include <chrono>
#include <ctime>

#include <spdlog/fmt/fmt.h>

#include "serving/api_error.h"

namespace nanochat {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::size_t kMaxIdBytes = 128;

void check_id(const std::string& id) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == ':' ||
           c == '-';
  };
  if (!id.empty() && id.size() <= kMaxIdBytes && std::all_of(id.begin(), id.end(), allowed)) return;
  throw ApiError::invalid(fmt::format("session_id: found {} bytes, expected 1 to {} letters, digits, '.', '_', ':' or '-'",
                                      id.size(), kMaxIdBytes),
                          "session_id");
}

ApiError no_session(const std::string& id) {
  return {404, "invalid_request_error", fmt::format("session: found \"{}\", expected the id of a session", id), "id",
          "session_not_found"};
}

std::string dumped(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

std::int64_t unix_time() { return static_cast<std::int64_t>(std::time(nullptr)); }

}  // namespace

CachedPath::~CachedPath() {
  if (tokens_.empty()) return;
  if (const auto engine = engine_.lock()) engine->release_prefix(std::move(tokens_));
}

ChatSessions::ChatSessions(const SessionLimits& limits)
    : limits_(limits), store_(limits.max_sessions, limits.max_bytes,
                              std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                                  std::chrono::duration<double>(limits.time_to_live))) {}

std::shared_ptr<ChatSessions::Turn> ChatSessions::begin(const std::string& id, const std::string& owner,
                                                        const json& new_messages) {
  check_id(id);
  if (limits_.max_sessions == 0) {
    throw ApiError::invalid("session_id: is not supported; this server keeps no sessions (--max-sessions 0)", "session_id",
                            "unsupported");
  }
  const auto turn = std::make_shared<Turn>(shared_from_this(), Name(owner, id));
  {
    const std::lock_guard lock(mutex_);
    if (!turns_.emplace(turn->name_, turn.get()).second) {
      throw ApiError(409, "invalid_request_error",
                     fmt::format("session_id: \"{}\" is answering another request, expected one request at a time", id),
                     "session_id", "session_busy");
    }
  }
  const auto stored = store_.find(id, owner);
  turn->messages_ = stored == nullptr ? json::array() : json::parse(stored->messages);
  turn->created_ = stored == nullptr ? unix_time() : stored->created;
  turn->earlier_ = turn->messages_.size();
  turn->messages_.insert(turn->messages_.end(), new_messages.begin(), new_messages.end());
  if (const std::size_t size = dumped(turn->messages_).size(); size > limits_.max_bytes / 2) {
    throw ApiError::invalid(fmt::format("session_id: found {} bytes of messages, expected at most {}, half of the room for all "
                                        "sessions",
                                        size, limits_.max_bytes / 2),
                            "session_id", "out_of_range");
  }
  return turn;
}

ordered_json ChatSessions::describe(const std::string& id, const std::string& owner) {
  const auto stored = store_.find(id, owner);
  if (stored == nullptr) throw no_session(id);
  ordered_json object = {{"id", id}, {"object", "session"}, {"created_at", stored->created}, {"last_used_at", stored->used}};
  // Reading a session is a use of it, as its expiry counts.
  object["expires_at"] = unix_time() + static_cast<std::int64_t>(limits_.time_to_live);
  object["messages"] = ordered_json::parse(stored->messages);
  return object;
}

void ChatSessions::erase(const std::string& id, const std::string& owner) {
  bool running = false;
  {
    const std::lock_guard lock(mutex_);
    running = turns_.erase(Name(owner, id)) > 0;
  }
  if (!store_.erase(id, owner) && !running) throw no_session(id);
}

void ChatSessions::Turn::set_prompt(std::weak_ptr<InferenceBackend> engine, std::vector<std::int32_t> prompt) {
  engine_ = std::move(engine);
  tokens_ = std::move(prompt);
}

void ChatSessions::Turn::commit() {
  json answer = {{"role", "assistant"}, {"content", answer_.text}};
  for (const AnswerCalculation& one : answer_.calculations) {
    answer["nanochat_calculations"].push_back({{"expression", one.expression}, {"result", one.result}, {"offset", one.offset}});
  }
  for (const ToolCallPart& call : answer_.calls) {
    answer["tool_calls"].push_back(
        {{"id", call.id}, {"type", "function"}, {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
  }
  messages_.push_back(std::move(answer));
  CachedPath cached(engine_, std::move(tokens_));
  // The session is stored while the turn still runs, so that the next turn finds it; and not at all if it was deleted meanwhile.
  const std::lock_guard lock(sessions_->mutex_);
  const auto found = sessions_->turns_.find(name_);
  if (found == sessions_->turns_.end() || found->second != this) return;
  sessions_->store_.put(name_.second, {.owner = name_.first,
                                       .messages = dumped(messages_),
                                       .created = created_,
                                       .used = unix_time(),
                                       .cached = std::move(cached)});
  sessions_->turns_.erase(found);
}

void ChatSessions::Turn::abandon() {
  const std::lock_guard lock(sessions_->mutex_);
  const auto found = sessions_->turns_.find(name_);
  if (found != sessions_->turns_.end() && found->second == this) sessions_->turns_.erase(found);
}

}  // namespace nanochat
