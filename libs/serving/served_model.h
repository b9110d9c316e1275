#pragma once
// What is served: an engine, a tokenizer, and what is said about them. The engine is behind an interface, so that tests can
// put one in its place that does exactly what a test needs.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "inference/engine.h"
#include "tokenizer/tokenizer.h"

namespace nanochat {

// The part of Engine that serving uses, with its promises.
class InferenceBackend {
 public:
  virtual ~InferenceBackend() = default;
  virtual Submission submit(EngineRequest request) = 0;
  virtual void cancel(RequestId id) = 0;
  virtual void invalidate(std::function<bool(std::span<const std::int32_t>)> matches, std::function<void(std::int64_t)> done) = 0;
  virtual EngineStats stats() const = 0;
  virtual bool ready() const = 0;
  virtual std::int64_t context_length() const = 0;
  virtual std::int64_t vocab_size() const = 0;
};

// The engine must outlive it.
std::shared_ptr<InferenceBackend> engine_backend(Engine& engine);

struct ServedModel {
  std::string id;           // "my-run"
  std::int64_t created = 0; // seconds since 1970, of the checkpoint
  std::string fingerprint;  // system_fingerprint: equal for equal weights, tokenizer and program
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<InferenceBackend> engine;
  std::vector<std::int32_t> stop_tokens;
  // Answers must be JSON that a schema allows, any object for null. Throws ConfigError for what it does not support. Empty:
  // response_format and calls that tool_choice requires are refused.
  std::function<std::unique_ptr<TokenConstraint>(const nlohmann::ordered_json& schema)> make_constraint;
  bool has_tools = false;   // chats may use the calculator: the tokenizer has its tokens, the engine make_tool
};

}  // namespace nanochat
