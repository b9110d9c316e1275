// The engine behind the interface of serving: what is asked of the one is asked of the other.
#include <future>

#include <ATen/Parallel.h>
#include <gmock/gmock.h>

#include "inference/testing_engine.h"
#include "model/gpt.h"
#include "model/testing.h"
#include "serving/served_model.h"

namespace nanochat {
namespace {

class EngineBackendTest : public ::testing::Test {
 protected:
  static std::unique_ptr<Gpt> model() {
    at::set_num_threads(1);
    GptConfig config = GptConfig::from_depth(1, 90, 96);
    return std::make_unique<Gpt>(testing::random_model(config, at::kFloat, 3));
  }
  static EngineOptions options() {
    EngineOptions options;
    options.block_size = 8;
    options.kv_blocks = 64;
    options.max_running = 4;
    options.max_batch_tokens = 64;
    return options;
  }
  static EngineRequest request(testing::Receiver& receiver, std::int64_t max_tokens) {
    EngineRequest request;
    request.prompt = {5, 6, 7, 8, 9, 10, 11, 12, 13, 14};
    request.max_tokens = max_tokens;
    request.on_event = receiver.callback();
    return request;
  }
  Engine engine_{model(), options()};
  std::shared_ptr<InferenceBackend> backend_ = engine_backend(engine_);
};

TEST_F(EngineBackendTest, PassesRequestsAndWhatIsKnownOfTheModel) {
  EXPECT_FALSE(backend_->ready());
  engine_.start();
  testing::Receiver receiver;
  ASSERT_TRUE(backend_->submit(request(receiver, 3)));
  EXPECT_EQ(receiver.wait().sequences[0].ids.size(), 3u);
  EXPECT_TRUE(backend_->ready());
  EXPECT_EQ(backend_->context_length(), 96);
  EXPECT_EQ(backend_->vocab_size(), 90);
  EXPECT_EQ(backend_->stats().requests, 1);
}

TEST_F(EngineBackendTest, PassesCancellations) {
  testing::Receiver receiver;
  const Submission submission = backend_->submit(request(receiver, 50));
  backend_->cancel(submission.id);
  engine_.start();
  EXPECT_EQ(receiver.wait().sequences[0].reason, FinishReason::kCancelled);
}

TEST_F(EngineBackendTest, PassesInvalidations) {
  engine_.start();
  testing::Receiver receiver;
  ASSERT_TRUE(backend_->submit(request(receiver, 3)));
  receiver.wait();
  const auto forget = [&](std::int32_t first) {
    std::promise<std::int64_t> count;
    backend_->invalidate([first](std::span<const std::int32_t> ids) { return ids.front() == first; },
                         [&](std::int64_t forgotten) { count.set_value(forgotten); });
    return count.get_future().get();
  };
  EXPECT_EQ(forget(99), 0);
  EXPECT_EQ(forget(5), 1);
}

}  // namespace
}  // namespace nanochat
