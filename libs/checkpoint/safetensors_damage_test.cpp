// A small file, damaged in hundreds of seeded ways: an error or valid tensors, never a crash.

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include "checkpoint/safetensors.h"
#include "core/atomic_file.h"
#include "core/errors.h"
#include "core/random.h"
#include "core/testing.h"

namespace nanochat {
namespace {

enum class Damage { kTruncate, kFlipBit, kFlipHeaderBit, kSwap, kInsert, kDigit };

std::string damaged(std::string bytes, Damage damage, Rng& rng) {
  const std::size_t header_end = 8 + static_cast<unsigned char>(bytes[0]) + 256 * static_cast<unsigned char>(bytes[1]);
  switch (damage) {
    case Damage::kTruncate: bytes.resize(rng.below(bytes.size())); break;
    case Damage::kFlipBit: bytes[rng.below(bytes.size())] ^= static_cast<char>(1 << rng.below(8)); break;
    case Damage::kFlipHeaderBit: bytes[rng.below(header_end)] ^= static_cast<char>(1 << rng.below(8)); break;
    case Damage::kSwap: std::swap(bytes[rng.below(header_end)], bytes[rng.below(bytes.size())]); break;
    case Damage::kInsert: bytes.insert(rng.below(bytes.size()), 1 + rng.below(9), static_cast<char>(rng.below(256))); break;
    case Damage::kDigit: {  // keeps the JSON valid and makes its numbers lie
      std::size_t at = 8 + rng.below(header_end - 8);
      while (at < header_end && (bytes[at] < '0' || bytes[at] > '9')) ++at;
      if (at < header_end) bytes[at] = static_cast<char>('0' + rng.below(10));
      break;
    }
  }
  return bytes;
}

TEST(SafetensorsDamage, IsFoundOrHarmless) {
  const nanochat::testing::TemporaryDirectory folder;
  const std::filesystem::path path = folder / "a.safetensors";
  write_safetensors(
      path, {{"w", at::arange(12, at::kFloat).view({3, 4})}, {"n", at::arange(5, at::kInt)}, {"h", at::arange(6, at::kHalf)}},
      {{"format", "pt"}});
  const std::string original = read_file(path);
  Rng rng(20251123);
  int refused = 0, accepted = 0;
  constexpr int kRounds = 900;
  for (int round = 0; round < kRounds; ++round) {
    const auto damage = static_cast<Damage>(round % 6);
    const std::string bytes = damaged(original, damage, rng);
    nanochat::testing::write_text(path, bytes);
    try {
      const SafetensorsFile file(path);
      for (const auto& [name, entry] : file.entries()) {
        ASSERT_LE(entry.begin, entry.end);
        ASSERT_LE(entry.end, bytes.size());
        at::Tensor copy = file.tensor(name);
        ASSERT_EQ(copy.nbytes(), entry.end - entry.begin);
        at::Tensor target = at::empty(entry.shape, entry.dtype);
        file.read_into(name, target);
      }
      ++accepted;
    } catch (const CheckpointError& error) {
      ASSERT_NE(std::string(error.what()).find(path.string()), std::string::npos) << error.what();
      ASSERT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
      ++refused;
      continue;
    }
    ASSERT_NE(damage, Damage::kTruncate) << "a truncated file was accepted";
  }
  EXPECT_GT(refused, kRounds / 3);
  EXPECT_GT(accepted, 0);  // flipped data bits are for the checkpoint's SHA-256 to find
}

}  // namespace
}  // namespace nanochat
