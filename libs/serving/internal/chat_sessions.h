#pragma once
// Sessions of POST /v1/chat/completions: the server keeps the messages of a conversation, and a request has only the new ones.
// The blocks of the KV cache that a session has filled stay in the prefix cache. When a session goes (deleted, expired, evicted),
// the blocks that no other conversation shares go too.
//
// A session takes one request at a time, its turn. It changes when the answer is complete, and not at all if the answer fails or
// its client leaves. Thread-safe.
//
//   const auto turn = sessions->begin("my-chat", owner, new_messages);  // throws ApiError (409) if another turn is running
//   turn->messages();                                                   // the earlier messages and the new ones
//   turn->add(part); turn->add_token(id); ...                           // as the answer comes
//   turn->commit();                                                     // before its end is sent

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "inference/inference_backend.h"
#include "serving/internal/answer_format.h"
#include "serving/internal/owned_store.h"
#include "serving/session_limits.h"

namespace nanochat {

// The tokens of a sequence whose blocks are in the prefix cache of an engine. The destructor has the engine drop the blocks
// that only sequences with these tokens use.
class CachedPath {
 public:
  CachedPath() = default;
  CachedPath(std::weak_ptr<InferenceBackend> engine, std::vector<std::int32_t> tokens)
      : engine_(std::move(engine)), tokens_(std::move(tokens)) {}
  ~CachedPath();
  CachedPath(CachedPath&& other) noexcept : engine_(std::move(other.engine_)), tokens_(std::exchange(other.tokens_, {})) {}
  CachedPath& operator=(CachedPath&&) = delete;
  std::size_t bytes() const { return tokens_.size() * sizeof(std::int32_t); }

 private:
  std::weak_ptr<InferenceBackend> engine_;
  std::vector<std::int32_t> tokens_;
};

struct StoredSession {
  std::string owner;  // the API key; empty if the server needs none
  std::string messages;  // JSON array, in the form of requests
  std::int64_t created = 0, used = 0;  // seconds since 1970
  CachedPath cached = {};
  std::size_t bytes() const { return owner.size() + messages.size() + cached.bytes(); }
};

class ChatSessions : public std::enable_shared_from_this<ChatSessions> {
 public:
  class Turn;

  explicit ChatSessions(const SessionLimits& limits);

  // Begins a turn of the session, which is created if it does not exist. Throws ApiError: 400 for an id that is not 1 to 128
  // letters, digits, '.', '_', ':' or '-', or for more messages than a session may have; 409 during another turn.
  std::shared_ptr<Turn> begin(const std::string& id, const std::string& owner, const nlohmann::json& new_messages);
  // {"id", "object", "created_at", "last_used_at", "expires_at", "messages"}. Throws ApiError (404).
  nlohmann::ordered_json describe(const std::string& id, const std::string& owner);
  // Also ends the turn that is running: its answer is sent, and not kept. Throws ApiError (404).
  void erase(const std::string& id, const std::string& owner);

  std::size_t count() { return store_.count(); }
  std::size_t bytes() { return store_.bytes(); }

 private:
  using Name = std::pair<std::string, std::string>;  // owner, id

  const SessionLimits limits_;
  OwnedStore<StoredSession> store_;
  std::mutex mutex_;
  std::map<Name, const Turn*> turns_;  // that are running
};

// The functions are called by one thread at a time, abandon() by any.
class ChatSessions::Turn {
 public:
  Turn(std::shared_ptr<ChatSessions> sessions, Name name) : sessions_(std::move(sessions)), name_(std::move(name)) {}
  ~Turn() { abandon(); }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

  const std::string& id() const { return name_.second; }
  std::size_t earlier() const { return earlier_; }  // number of messages that the session had before
  const nlohmann::json& messages() const { return messages_; }

  // The engine and the prompt that answer the turn.
  void set_prompt(std::weak_ptr<InferenceBackend> engine, std::vector<std::int32_t> prompt);
  void add_token(std::int32_t token) { tokens_.push_back(token); }
  void add(const ChoicePart& part) { answer_.append(part); }
  void commit();  // the answer is complete: the session gets the new messages and the answer
  void abandon();  // the session stays as it was. Does nothing after commit()

 private:
  friend class ChatSessions;
  const std::shared_ptr<ChatSessions> sessions_;
  const Name name_;
  nlohmann::json messages_;
  std::size_t earlier_ = 0;
  std::int64_t created_ = 0;
  std::weak_ptr<InferenceBackend> engine_;
  std::vector<std::int32_t> tokens_;  // of the prompt and the answer
  ChoicePart answer_;
};

}  // namespace nanochat
