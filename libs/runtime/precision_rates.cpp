#include "runtime/precision_rates.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <functional>
#include <limits>

#include "core/elapsed.h"
#include "ops/linear.h"
#include "ops/matrix_product.h"

namespace nanochat {
namespace {

constexpr int kTurns = 4;              // of each precision
constexpr double kMostSeconds = 0.25;  // begin no further turn after so long: a slow processor shows a difference soon

double seconds_of(const std::function<void()>& work) {
  const SteadyClock::time_point before = SteadyClock::now();
  work();
  return seconds_since(before);
}

// The least seconds that each takes, by turns. The first turn of each, which also chooses kernels, is not counted.
struct Least {
  double float32, bfloat16;
};
Least take_turns(const std::function<void()>& float32, const std::function<void()>& bfloat16) {
  float32();
  bfloat16();
  Least least{std::numeric_limits<double>::infinity(), std::numeric_limits<double>::infinity()};
  const SteadyClock::time_point begin = SteadyClock::now();
  for (int turn = 0; turn < kTurns; ++turn) {
    least.float32 = std::min(least.float32, seconds_of(float32));
    least.bfloat16 = std::min(least.bfloat16, seconds_of(bfloat16));
    if (seconds_since(begin) > kMostSeconds) break;
  }
  return least;
}

// The products of a linear layer in one step.
class Layer {
 public:
  Layer(at::ScalarType dtype, std::int64_t rows) {
    constexpr std::int64_t kInputs = 256, kOutputs = 1024;
    x_ = at::full({rows, kInputs}, 0.5, dtype);
    w_ = at::full({kOutputs, kInputs}, 0.25, dtype);
    y_ = at::empty({rows, kOutputs}, dtype);
    dx_ = at::empty({rows, kInputs}, dtype);
    dw_ = at::zeros({kOutputs, kInputs}, at::kFloat);
    if (ops::needs_weight_scratch(x_)) scratch_ = at::empty({kOutputs, kInputs}, dtype);
    flops_ = 3.0 * 2.0 * static_cast<double>(rows * kInputs * kOutputs);
  }
  void step() {
    ops::linear(x_, w_, y_);
    ops::linear_backward_input(y_, w_, dx_);
    ops::linear_backward_weight(y_, x_, dw_, scratch_);
  }
  double flops() const { return flops_; }

 private:
  at::Tensor x_, w_, y_, dx_, dw_, scratch_;
  double flops_ = 0.0;
};

// Rows by a matrix, as a model that writes multiplies them.
class Product {
 public:
  Product(at::ScalarType dtype, std::int64_t rows, std::int64_t inputs, std::int64_t outputs) {
    x_ = at::full({rows, inputs}, 0.5, dtype);
    w_ = at::full({outputs, inputs}, 0.25, dtype);
    y_ = at::empty({rows, outputs}, dtype);
  }
  void step() { ops::linear_inference(x_, w_, y_); }
  double weights() const { return static_cast<double>(w_.numel()); }

 private:
  at::Tensor x_, w_, y_;
};

}  // namespace

PrecisionRates measure_training_products() {
  constexpr std::int64_t kRows = 2048, kFewRows = 64;
  constexpr double kHopeless = 4.0;  // times slower than float32: emulated, and not worth the seconds of a whole measurement
  Layer wide(at::kFloat, kRows), few_wide(at::kFloat, kFewRows), few_narrow(at::kBFloat16, kFewRows);
  const Least first = take_turns([&] { few_wide.step(); }, [&] { few_narrow.step(); });
  if (first.bfloat16 > kHopeless * first.float32) {
    return {few_wide.flops() / first.float32, few_narrow.flops() / first.bfloat16};
  }
  Layer narrow(at::kBFloat16, kRows);
  const Least least = take_turns([&] { wide.step(); }, [&] { narrow.step(); });
  return {wide.flops() / least.float32, narrow.flops() / least.bfloat16};
}

PrecisionRates measure_decoding_products() {
  constexpr std::int64_t kPrompt = 128, kAnswer = 128;
  const auto measure = [](std::int64_t rows, std::int64_t inputs, std::int64_t outputs) {  // seconds a weight
    Product wide(at::kFloat, rows, inputs, outputs), narrow(at::kBFloat16, rows, inputs, outputs);
    const Least least = take_turns([&] { wide.step(); }, [&] { narrow.step(); });
    return Least{least.float32 / wide.weights(), least.bfloat16 / narrow.weights()};
  };
  const Least row = measure(1, 1024, 16384), prompt = measure(kPrompt, 512, 512);
  const auto rate = [&](double of_prompt, double of_row) {
    return static_cast<double>(kPrompt + kAnswer) / (of_prompt + static_cast<double>(kAnswer) * of_row);
  };
  return {rate(prompt.float32, row.float32), rate(prompt.bfloat16, row.bfloat16)};
}

}  // namespace nanochat
