#include "serving/served_model.h"

namespace nanochat {
namespace {

class EngineBackend : public InferenceBackend {
 public:
  explicit EngineBackend(Engine& engine) : engine_(engine) {}
  Submission submit(EngineRequest request) override { return engine_.submit(std::move(request)); }
  void cancel(RequestId id) override { engine_.cancel(id); }
  void invalidate(std::function<bool(std::span<const std::int32_t>)> matches, std::function<void(std::int64_t)> done) override {
    engine_.invalidate(std::move(matches), std::move(done));
  }
  EngineStats stats() const override { return engine_.stats(); }
  bool ready() const override { return engine_.ready(); }
  std::int64_t context_length() const override { return engine_.context_length(); }
  std::int64_t vocab_size() const override { return engine_.vocab_size(); }

 private:
  Engine& engine_;
};

}  // namespace

std::shared_ptr<InferenceBackend> engine_backend(Engine& engine) { return std::make_shared<EngineBackend>(engine); }

}  // namespace nanochat
