#pragma once
// Measures how fast this processor multiplies in float32 and in bfloat16, with the kernels of training and of
// decoding. `--dtype auto` uses this. Instruction sets do not tell: with AVX512-BF16, products may run at
// twice or at half the rate of float32. The two precisions are measured in turns and the fastest turn counts,
// so another program slows both equally. Uses as many threads as kernels do; about 0.2 s each on two cores.

namespace nanochat {

struct PrecisionRates {
  double float32 = 0.0, bfloat16 = 0.0;
  bool operator==(const PrecisionRates&) const = default;
};

// Floating-point operations per second in the three products of a linear layer in a training
// step, 2048 rows of 256 numbers to 1024: forward, gradient of the input, gradient of the weight.
PrecisionRates measure_training_products();

// Weights per second and token in an answer of 128 tokens to a prompt of 128. The answer is products of one row
// with a matrix larger than most caches. It is bound by memory, and half the bytes give twice the rate if the
// kernels keep up. The prompt is a product of 128 rows; a processor without bfloat16 products emulates it slowly.
PrecisionRates measure_decoding_products();

}  // namespace nanochat
