#pragma once
// How fast this machine's processor multiplies in float32 and in bfloat16, by the kernels that training and decoding
// use: what `--dtype auto` decides by. Instruction sets do not tell: where AVX512-BF16 exists, its products may run at
// twice or at half the rate of those in float32. Both precisions take turns, and the fastest turn of each counts, so
// that another program slows them alike. With as many threads as kernels use; about 0.2 s each on two cores.

namespace nanochat {

struct PrecisionRates {
  double float32 = 0.0, bfloat16 = 0.0;
  bool operator==(const PrecisionRates&) const = default;
};

// Floating-point operations per second in the three products of a linear layer of a training step, 2048 rows of 256
// numbers to 1024: forward, gradient of the input, gradient of the weight.
PrecisionRates measure_training_products();

// Weights per second and token in an answer of 128 tokens to a prompt of 128. The answer is products of one row with a
// matrix that is larger than most caches: bound by memory, where half the bytes are twice the rate, unless the kernels
// cannot keep up. The prompt is a product of 128 rows, which a processor without products of bfloat16 emulates slowly.
PrecisionRates measure_decoding_products();

}  // namespace nanochat
