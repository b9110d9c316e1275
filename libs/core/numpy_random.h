#pragma once
// The permutations of NumPy's Generator, numpy.random.default_rng(seed).permutation(n), exact in
// every draw. Hugging Face's datasets use them for Dataset.shuffle(seed=…), so the first rows of a
// shuffled set are the same here. PCG64 (O'Neill 2014, PCG XSL RR 128/64) seeded by NumPy's
// SeedSequence. Fisher-Yates from the end; each index is 32 masked bits, drawn again above the bound.

#include <cstdint>
#include <vector>

namespace nanochat {

// A permutation of 0 … n - 1. n is at most 2^32; above that NumPy draws 64 bits. Throws std::invalid_argument.
std::vector<std::uint32_t> numpy_permutation(std::uint64_t n, std::uint64_t seed);

}  // namespace nanochat
