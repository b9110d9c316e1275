// Constrained answers with a vocabulary of 65,536 tokens: the first use of a schema, the mask of a token after it, and the
// time for a token of a model of depth 12 with and without a constraint.
#include "inference/answer_constraint.h"

#include <chrono>
#include <future>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>
#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include "core/random.h"
#include "inference/engine.h"
#include "inference/testing_vocabulary.h"
#include "model/gpt.h"

namespace nanochat::benchmarks {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kVocabSize = 65'536;
constexpr std::int64_t kRoom = 4096;  // tokens that are left for an answer

const std::vector<std::string>& tokens() {
  static const std::vector<std::string> all = testing::make_vocabulary(kVocabSize);
  return all;
}
const std::shared_ptr<const TokenTrie>& trie() {
  static const std::shared_ptr<const TokenTrie> made = testing::trie_of(tokens());
  return made;
}

// As Pydantic writes a class with 200 fields of five types.
Json form() {
  const std::vector<Json> types = {{{"type", "integer"}},
                                   {{"type", "string"}},
                                   {{"enum", {"red", "green", "blue"}}},
                                   {{"type", "number"}},
                                   {{"type", "array"}, {"items", {{"type", "string"}}}}};
  Json schema = {{"type", "object"}, {"properties", Json::object()}, {"required", Json::array()}};
  for (std::size_t i = 0; i < 200; ++i) {
    const std::string name = fmt::format("field_{}", i);
    schema["properties"][name] = types[i % types.size()];
    schema["required"].push_back(name);
  }
  return schema;
}
Json short_text() {
  return {{"type", "string"}, {"minLength", 300}, {"maxLength", 400}};
}  // a state for each number of characters
Json word_pattern() { return {{"type", "string"}, {"pattern", "^[A-Za-z]+( [A-Za-z]+)*$"}}; }
Json numbers() { return {{"type", "array"}, {"items", {{"type", "integer"}}}, {"minItems", 100}}; }
Json records() {
  const Json properties = {{"name", {{"type", "string"}, {"maxLength", 20}}},
                           {"age", {{"type", "integer"}, {"minimum", 0}, {"maximum", 150}}},
                           {"color", {{"enum", {"red", "green", "blue"}}}}};
  const Json record = {{"type", "object"}, {"properties", properties}, {"required", {"name", "age", "color"}}};
  return {{"type", "array"}, {"items", record}, {"minItems", 5}};
}

// Until the first mask.
void first_use(benchmark::State& state, const Json& schema) {
  trie();
  for (auto _ : state)
    benchmark::DoNotOptimize(answer_constraint(AnswerForm::kJsonSchema, schema, trie())->allowed(kRoom).data());
}
BENCHMARK_CAPTURE(first_use, form, form())->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(first_use, short_text, short_text())->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(first_use, word_pattern, word_pattern())->Unit(benchmark::kMillisecond);

// The mask of a token and the step behind it, in answers of tokens drawn at random. The first answers are not timed.
void mask(benchmark::State& state, const Json& schema) {
  constexpr int kUntimed = 20;
  const auto first = answer_constraint(AnswerForm::kJsonSchema, schema, trie());
  Rng rng(1);
  auto constraint = first->clone();
  std::int64_t room = kRoom;
  const auto step = [&](const auto& timed) {
    if (constraint->must_end() || room == 0) {
      constraint = first->clone();
      room = kRoom;
    }
    std::span<const std::uint64_t> allowed;
    timed([&] { allowed = constraint->allowed(room--); });
    const std::int32_t token = rng.choose(testing::allowed_ids(allowed, kVocabSize));
    timed([&] { constraint->accept(token); });
  };
  for (int answer = 0; answer < kUntimed; ++answer) {
    do {
      step([](const auto& what) { what(); });
    } while (!constraint->must_end() && room > 0);
  }
  for (auto _ : state) {
    double seconds = 0.0;
    step([&](const auto& what) {
      const auto begin = std::chrono::steady_clock::now();
      what();
      seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    });
    state.SetIterationTime(seconds);
  }
}
BENCHMARK_CAPTURE(mask, form, form())->UseManualTime()->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(mask, short_text, short_text())->UseManualTime()->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(mask, word_pattern, word_pattern())->UseManualTime()->Unit(benchmark::kMicrosecond);

// The time between two tokens of one answer. The first answer under the schema is not timed.
void decode(benchmark::State& state, const Json& schema) {
  constexpr std::int64_t kTokens = 384;  // more than the shortest answer of each schema
  static const std::unique_ptr<Engine> engine = [] {
    const GptConfig config = GptConfig::from_depth(12, static_cast<std::int64_t>(kVocabSize), 512);
    auto model = std::make_unique<Gpt>(config, at::kBFloat16, at::kCPU, Purpose::kInference);
    model->init_weights(1);
    EngineOptions options;
    options.max_running = 1;
    auto made = std::make_unique<Engine>(std::move(model), options);
    made->start();
    return made;
  }();
  const std::unique_ptr<TokenConstraint> constraint = schema.is_null()
                                                          ? nullptr
                                                          : answer_constraint(AnswerForm::kJsonSchema, schema, trie());
  std::uint64_t seed = 0;
  const auto seconds_per_token = [&] {
    std::promise<EngineUsage> usage;
    EngineRequest request;
    request.prompt = {1, 2, 3};
    request.sampling.temperature = 1.0;
    request.sampling.seed = ++seed;
    request.max_tokens = kTokens;
    request.ignore_eos = true;
    request.logprobs = false;
    if (constraint != nullptr) request.constraint = constraint->clone();
    request.on_event = [&](const EngineEvent& event) {
      if (event.kind == EngineEventKind::kDone) usage.set_value(event.usage);
      return true;
    };
    engine->submit(std::move(request));
    const EngineUsage done = usage.get_future().get();
    return (done.total_seconds - done.first_token_seconds) / static_cast<double>(done.completion_tokens - 1);
  };
  seconds_per_token();
  for (auto _ : state) state.SetIterationTime(seconds_per_token());
}
BENCHMARK_CAPTURE(decode, free, Json())->UseManualTime()->Unit(benchmark::kMillisecond)->Iterations(4);
BENCHMARK_CAPTURE(decode, records, records())->UseManualTime()->Unit(benchmark::kMillisecond)->Iterations(4);
BENCHMARK_CAPTURE(decode, numbers, numbers())->UseManualTime()->Unit(benchmark::kMillisecond)->Iterations(4);
BENCHMARK_CAPTURE(decode, short_text, short_text())->UseManualTime()->Unit(benchmark::kMillisecond)->Iterations(4);

}  // namespace
}  // namespace nanochat::benchmarks
