// The row kernels, level by level where the processor has them, each against formulas in double.
#include "ops/cpu/kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "core/random.h"
#include "ops/cpu/row_products.h"

namespace nanochat::ops::cpu {

#define NANOCHAT_DECLARE_LEVEL(level)              \
  namespace level {                                \
  extern const Kernels<float> kFloatKernels;       \
  extern const Kernels<bf16> kBf16Kernels;         \
  extern const OptimizerKernels kOptimizerKernels; \
  extern const Exponentials kExponentials;         \
  extern const RowKernels<float> kFloatRowKernels; \
  extern const RowKernels<bf16> kBf16RowKernels;   \
  }
NANOCHAT_DECLARE_LEVEL(baseline)
#if defined(__x86_64__)
NANOCHAT_DECLARE_LEVEL(avx2)
NANOCHAT_DECLARE_LEVEL(avx512)
#endif
#undef NANOCHAT_DECLARE_LEVEL

namespace {

struct Level {
  std::string name;
  const Kernels<float>* floats;
  const Kernels<bf16>* bf16s;
  const OptimizerKernels* optimizer;
  Exponentials exponentials;
  const RowKernels<float>* float_rows;
  const RowKernels<bf16>* bf16_rows;

  template <class T>
  const RowKernels<T>& row_kernels() const {
    if constexpr (std::is_same_v<T, float>) {
      return *float_rows;
    } else {
      return *bf16_rows;
    }
  }
  template <class T>
  const Kernels<T>& kernels() const {
    if constexpr (std::is_same_v<T, float>) {
      return *floats;
    } else {
      return *bf16s;
    }
  }
};

void PrintTo(const Level& level, std::ostream* out) { *out << level.name; }

// What this processor can run.
std::vector<Level> levels() {
#define NANOCHAT_LEVEL(level)      \
  Level{#level,                    \
        &level::kFloatKernels,     \
        &level::kBf16Kernels,      \
        &level::kOptimizerKernels, \
        level::kExponentials,      \
        &level::kFloatRowKernels,  \
        &level::kBf16RowKernels}
  std::vector<Level> found = {NANOCHAT_LEVEL(baseline)};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(NANOCHAT_LEVEL(avx2));
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq")) {
    found.push_back(NANOCHAT_LEVEL(avx512));
  }
#endif
#undef NANOCHAT_LEVEL
  return found;
}

double value(float x) { return static_cast<double>(x); }
double value(bf16 x) { return static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(x) << 16)); }

template <class T>
T make(double x) {
  if constexpr (std::is_same_v<T, float>) {
    return static_cast<float>(x);
  } else {
    return static_cast<bf16>(std::bit_cast<std::uint32_t>(static_cast<float>(x)) >> 16);  // truncated: exact in bf16
  }
}

template <class T>
std::vector<T> random_row(std::int64_t n, std::uint64_t seed, double scale = 1.0) {
  Rng rng(seed);
  std::vector<T> row(static_cast<std::size_t>(n));
  for (T& x : row) x = make<T>(scale * rng.normal());
  return row;
}

// Relative to 1 or the value, whichever is larger. bf16 rounds once at the end, to half a unit of 8 bits.
template <class T>
constexpr double kTolerance = std::is_same_v<T, float> ? 1e-6 : 1.0 / 256;

template <class T>
void expect_near(T found, double expected, const std::string& what, double tolerance = kTolerance<T>) {
  EXPECT_NEAR(value(found), expected, tolerance * std::max(1.0, std::abs(expected))) << what;
}

const std::vector<std::int64_t> kSizes = {1, 2, 7, 15, 16, 17, 31, 33, 64, 100, 257};

class KernelLevels : public ::testing::TestWithParam<Level> {
 protected:
  // Runs check(T{}) for both element types.
  template <class Check>
  void for_both(const Check& check) {
    check(float{});
    check(bf16{});
  }
  template <class T>
  const Kernels<T>& kernels() const {
    return GetParam().kernels<T>();
  }
};

TEST_P(KernelLevels, RmsNormAndItsGradient) {
  for_both([&]<class T>(T) {
    for (const std::int64_t n : kSizes) {
      const std::int64_t rows = 3;
      const auto x = random_row<T>(rows * n, 1, 3.0), branch = random_row<T>(rows * n, 2);
      const auto dy = random_row<T>(rows * n, 3);
      std::vector<T> y(x.size()), residual = x, sum_norm(x.size()), dx(x.size()), added = branch;
      std::vector<float> rstd(rows), rstd_sum(rows);
      kernels<T>().rms_norm(x.data(), y.data(), rstd.data(), rows, n, 1e-6F);
      kernels<T>().rms_norm(x.data(), y.data(), nullptr, rows, n, 1e-6F);
      kernels<T>().add_rms_norm(residual.data(), branch.data(), sum_norm.data(), rstd_sum.data(), rows, n, 1e-6F);
      kernels<T>().rms_norm_backward(dy.data(), y.data(), rstd.data(), dx.data(), rows, n, false);
      kernels<T>().rms_norm_backward(dy.data(), y.data(), rstd.data(), added.data(), rows, n, true);
      for (std::int64_t row = 0; row < rows; ++row) {
        double squares = 0.0, squares_sum = 0.0, product = 0.0;
        for (std::int64_t i = 0; i < n; ++i) {
          const auto at = static_cast<std::size_t>(row * n + i);
          squares += value(x[at]) * value(x[at]);
          squares_sum += value(residual[at]) * value(residual[at]);
          product += value(dy[at]) * value(y[at]);
        }
        const auto r = static_cast<std::size_t>(row);
        const auto count = static_cast<double>(n);
        EXPECT_NEAR(value(rstd[r]), 1.0 / std::sqrt(squares / count + 1e-6), 1e-5 * value(rstd[r]));
        EXPECT_NEAR(value(rstd_sum[r]), 1.0 / std::sqrt(squares_sum / count + 1e-6), 1e-5 * value(rstd_sum[r]));
        for (std::int64_t i = 0; i < n; ++i) {
          const auto at = static_cast<std::size_t>(row * n + i);
          const std::string where = "n " + std::to_string(n) + " i " + std::to_string(i);
          expect_near(residual[at], value(x[at]) + value(branch[at]), where);
          expect_near(y[at], value(x[at]) * value(rstd[r]), where);
          expect_near(sum_norm[at], value(residual[at]) * value(rstd_sum[r]), where);
          const double gradient = value(rstd[r]) * (value(dy[at]) - value(y[at]) * product / count);
          expect_near(dx[at], gradient, where, 2 * kTolerance<T>);
          expect_near(added[at], value(branch[at]) + gradient, where, 2 * kTolerance<T>);
        }
      }
    }
  });
}

TEST_P(KernelLevels, RopeNormRotatesThenNormalises) {
  for_both([&]<class T>(T) {
    for (const std::int64_t half : {1, 4, 7, 16, 33}) {
      const std::int64_t d = 2 * half, heads = 3;
      const auto x = random_row<T>(heads * d, 1), dy = random_row<T>(heads * d, 2);
      std::vector<float> cos, sin, rstd(heads);
      for (std::int64_t i = 0; i < half; ++i) {
        cos.push_back(static_cast<float>(std::cos(0.3 * static_cast<double>(i + 1))));
        sin.push_back(static_cast<float>(std::sin(0.3 * static_cast<double>(i + 1))));
      }
      std::vector<T> y(x.size()), dx(x.size());
      kernels<T>().rope_norm(x.data(), y.data(), rstd.data(), cos.data(), sin.data(), heads, d, 1e-6F);
      kernels<T>().rope_norm_backward(dy.data(), y.data(), rstd.data(), cos.data(), sin.data(), dx.data(), heads, d);
      for (std::int64_t head = 0; head < heads; ++head) {
        const auto at = [&](std::int64_t i) { return static_cast<std::size_t>(head * d + i); };
        double squares = 0.0, product = 0.0;
        for (std::int64_t i = 0; i < d; ++i) {
          squares += value(x[at(i)]) * value(x[at(i)]);
          product += value(dy[at(i)]) * value(y[at(i)]);
        }
        const double scale = 1.0 / std::sqrt(squares / static_cast<double>(d) + 1e-6);
        const double mean = product / static_cast<double>(d);
        for (std::int64_t i = 0; i < half; ++i) {
          const double c = value(cos[static_cast<std::size_t>(i)]), s = value(sin[static_cast<std::size_t>(i)]);
          const double a = value(x[at(i)]), b = value(x[at(i + half)]);
          expect_near(y[at(i)], (a * c + b * s) * scale, "first half");
          expect_near(y[at(i + half)], (b * c - a * s) * scale, "second half");
          const double da = scale * (value(dy[at(i)]) - value(y[at(i)]) * mean);
          const double db = scale * (value(dy[at(i + half)]) - value(y[at(i + half)]) * mean);
          expect_near(dx[at(i)], da * c - db * s, "gradient of the first half", 2 * kTolerance<T>);
          expect_near(dx[at(i + half)], da * s + db * c, "gradient of the second half", 2 * kTolerance<T>);
        }
      }
    }
  });
}

TEST_P(KernelLevels, ReluSquared) {
  for_both([&]<class T>(T) {
    for (const std::int64_t n : kSizes) {
      auto x = random_row<T>(n, 1, 4.0);
      const auto dy = random_row<T>(n, 2);
      x[0] = make<T>(std::numeric_limits<double>::quiet_NaN());
      std::vector<T> y(x.size()), dx = dy;
      kernels<T>().relu_squared(x.data(), y.data(), n);
      kernels<T>().relu_squared_backward(dx.data(), y.data(), dx.data(), n);  // in place
      EXPECT_TRUE(std::isnan(value(y[0])));
      EXPECT_TRUE(std::isnan(value(dx[0])));
      for (std::size_t i = 1; i < x.size(); ++i) {
        const double positive = std::max(value(x[i]), 0.0);
        expect_near(y[i], positive * positive, "value");
        expect_near(dx[i], 2.0 * positive * value(dy[i]), "gradient", 2 * kTolerance<T>);  // y was rounded, and dx is
      }
    }
  });
}

TEST_P(KernelLevels, SoftcapIsAccurateEverywhere) {
  // Measured: 1.2e-7 for tanh; a rational or table approximation of three digits less would fail.
  constexpr double kLargestError = 2.5e-7;
  std::vector<float> z;
  for (double x = -30.0; x <= 30.0; x += 0.00137) z.push_back(static_cast<float>(x));
  for (const float x : {0.0F, 1e-8F, -1e-20F, 0.0999999F, 0.1F, 0.1000001F, 1e4F, -1e30F}) z.push_back(x);
  std::vector<float> capped(z.size());
  kernels<float>().softcap(z.data(), capped.data(), static_cast<std::int64_t>(z.size()), 1.0F);
  double largest = 0.0;
  for (std::size_t i = 0; i < z.size(); ++i) {
    largest = std::max(largest, std::abs(value(capped[i]) - std::tanh(value(z[i]))));
  }
  EXPECT_LT(largest, kLargestError);
  kernels<float>().softcap(z.data(), capped.data(), static_cast<std::int64_t>(z.size()), 0.0F);
  EXPECT_EQ(capped, z);  // no cap
}

TEST_P(KernelLevels, ExponentialsAreAccurateAndSumUp) {
  constexpr double kLargestRelativeError = 3e-7;
  std::vector<float> x;
  for (double v = -86.9; v <= 0.0; v += 0.0123) x.push_back(static_cast<float>(v));
  const auto n = static_cast<std::int64_t>(x.size());
  std::vector<float> y(x.size());
  const double sum = GetParam().exponentials(x.data(), y.data(), n, 0.0F, 1.0F);
  double total = 0.0, largest = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double expected = std::exp(value(x[i]));
    total += expected;
    largest = std::max(largest, std::abs(value(y[i]) / expected - 1.0));
  }
  EXPECT_LT(largest, kLargestRelativeError);
  EXPECT_NEAR(sum, total, 1e-6 * total);
  EXPECT_NEAR(GetParam().exponentials(x.data(), nullptr, n, 0.0F, 1.0F), total, 2e-6 * total);

  std::vector<float> in_place = {3.0F, 1.0F, -50.0F, -std::numeric_limits<float>::infinity()};
  EXPECT_NEAR(GetParam().exponentials(in_place.data(), in_place.data(), 4, 3.0F, 2.0F), 1.0 + std::exp(-4.0), 1e-6);
  EXPECT_EQ(in_place[0], 1.0F);
  EXPECT_EQ(in_place[2], 0.0F);  // exponent -106
  EXPECT_EQ(in_place[3], 0.0F);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(GetParam().exponentials(&nan, nullptr, 1, 0.0F, 1.0F)));
}

TEST_P(KernelLevels, SoftcapCrossEntropy) {
  for_both([&]<class T>(T) {
    for (const float cap : {0.0F, 15.0F, 60.0F}) {
      for (const std::int64_t vocab : {1, 5, 64, 101}) {
        const std::int64_t padded = 128, target = vocab / 2;
        const auto raw = random_row<T>(padded, 7, 20.0);
        auto z = raw;
        std::vector<float> scratch(static_cast<std::size_t>(2 * vocab));
        const auto run = [&](std::vector<T>& logits, bool gradient) {
          return kernels<T>().softcap_cross_entropy(logits.data(), scratch.data(), vocab, padded, target, cap, gradient, 0.5F);
        };
        const float loss = run(z, true);
        std::vector<double> capped, slope;
        for (std::int64_t i = 0; i < vocab; ++i) {
          const double u = cap > 0.0F ? std::tanh(value(raw[static_cast<std::size_t>(i)]) / value(cap)) : 0.0;
          capped.push_back(cap > 0.0F ? value(cap) * u : value(raw[static_cast<std::size_t>(i)]));
          slope.push_back(1.0 - u * u);
        }
        const double maximum = *std::max_element(capped.begin(), capped.end());
        double sum = 0.0;
        for (const double c : capped) sum += std::exp(c - maximum);
        const double log_sum = maximum + std::log(sum);
        const auto t = static_cast<std::size_t>(target);
        EXPECT_NEAR(value(loss), log_sum - capped[t], 2e-5) << "cap " << cap << " vocab " << vocab;
        for (std::size_t i = 0; i < static_cast<std::size_t>(padded); ++i) {
          if (i >= static_cast<std::size_t>(vocab)) {
            EXPECT_EQ(value(z[i]), 0.0);
            continue;
          }
          const double p = std::exp(capped[i] - log_sum) - (i == t ? 1.0 : 0.0);
          expect_near(z[i], 0.5 * p * slope[i], "gradient", std::is_same_v<T, float> ? 3e-6 : 1.0 / 256);
        }
        auto untouched = raw;
        EXPECT_EQ(run(untouched, false), loss);
        EXPECT_EQ(untouched, raw);
      }
    }
  });
}

TEST_P(KernelLevels, ConversionsAndSums) {
  for_both([&]<class T>(T) {
    for (const std::int64_t n : kSizes) {
      const auto x = random_row<T>(n, 1);
      const auto wide = random_row<float>(n, 2);
      std::vector<float> to(x.size()), sum = wide;
      std::vector<T> back(x.size());
      kernels<T>().to_float(x.data(), to.data(), n);
      kernels<T>().from_float(to.data(), back.data(), n);
      kernels<T>().accumulate(sum.data(), x.data(), n);
      EXPECT_EQ(back, x);
      for (std::size_t i = 0; i < x.size(); ++i) {
        EXPECT_EQ(value(to[i]), value(x[i]));
        EXPECT_EQ(sum[i], wide[i] + to[i]);
      }
    }
  });
}

TEST_P(KernelLevels, RoundsToNearestEvenAndKeepsNan) {
  const auto round = [&](std::uint32_t bits) {
    const auto x = std::bit_cast<float>(bits);
    bf16 y = 0;
    kernels<bf16>().from_float(&x, &y, 1);
    return y;
  };
  EXPECT_EQ(round(0x3f808000), 0x3f80);  // ties go to even
  EXPECT_EQ(round(0x3f818000), 0x3f82);
  EXPECT_EQ(round(0x3f808001), 0x3f81);
  EXPECT_EQ(round(0x7f7fffff), 0x7f80);  // the largest float becomes infinity
  EXPECT_EQ(round(0x7f800000), 0x7f80);
  EXPECT_EQ(round(0x80000001), 0x8000);
  for (const std::uint32_t nan : {0x7f800001U, 0x7fffffffU, 0xff800001U, 0xffffffffU}) {
    EXPECT_TRUE(std::isnan(value(round(nan)))) << std::hex << nan;
  }
}

// Each of 7 queries against the formula in double; blocks of 4 positions in reverse order.
TEST_P(KernelLevels, AttendIsSoftmaxOverTheKeys) {
  for_both([&]<class T>(T) {
    constexpr std::int64_t kQueries = 7, kBlock = 4;
    for (const std::int64_t keys : {1, 2, 17, 200}) {
      for (const std::int64_t d : {1, 8, 33, 64, 192}) {
        const double scale = 1.0 / std::sqrt(static_cast<double>(d));
        const std::int64_t stride = d + 5, apart = 2 * d, positions = keys + kQueries - 1;
        std::vector<std::int32_t> blocks(static_cast<std::size_t>((positions + kBlock - 1) / kBlock));
        for (std::size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<std::int32_t>(blocks.size() - 1 - i);
        const auto slab = static_cast<std::int64_t>(blocks.size()) * kBlock * stride;
        const auto q = random_row<T>(kQueries * apart, 1), k = random_row<T>(slab, 2), v = random_row<T>(slab, 3);
        const auto at = [&](std::int64_t position) {
          return (blocks[static_cast<std::size_t>(position / kBlock)] * kBlock + position % kBlock) * stride;
        };
        std::vector<T> y(static_cast<std::size_t>(kQueries * apart));
        std::vector<float> scratch(static_cast<std::size_t>(attend_scratch(positions)));
        const PagedHead<T> head{k.data(), v.data(), blocks.data(), kBlock, kBlock * stride, stride};
        GetParam().template row_kernels<T>().attend(q.data(), apart, kQueries, head, y.data(), apart, scratch.data(), keys, d,
                                                    static_cast<float>(scale));
        for (std::int64_t query = 0; query < kQueries; ++query) {
          std::vector<double> expected(static_cast<std::size_t>(d));
          double total = 0.0;
          for (std::int64_t key = 0; key < keys + query; ++key) {
            double dot = 0.0;
            for (std::int64_t i = 0; i < d; ++i) {
              dot += value(q[static_cast<std::size_t>(query * apart + i)]) * value(k[static_cast<std::size_t>(at(key) + i)]);
            }
            const double weight = std::exp(scale * dot);
            total += weight;
            for (std::int64_t i = 0; i < d; ++i) {
              expected[static_cast<std::size_t>(i)] += weight * value(v[static_cast<std::size_t>(at(key) + i)]);
            }
          }
          const std::string where = "keys " + std::to_string(keys) + " d " + std::to_string(d) + " query " +
                                    std::to_string(query);
          for (std::int64_t i = 0; i < d; ++i) {
            expect_near(y[static_cast<std::size_t>(query * apart + i)], expected[static_cast<std::size_t>(i)] / total, where);
          }
        }
      }
    }
  });
}

TEST_P(KernelLevels, AdamWFollowsItsFormula) {
  for (const std::int64_t n : kSizes) {
    const auto p0 = random_row<float>(n, 1), g = random_row<float>(n, 2), m0 = random_row<float>(n, 3);
    auto p = p0, m = m0, v = random_row<float>(n, 4);
    for (float& x : v) x = x * x;
    const auto v0 = v;
    std::vector<bf16> copy(p.size());
    GetParam().optimizer->adamw(p.data(), g.data(), m.data(), v.data(), copy.data(), n, 0.5F, 0.8F, 0.95F, 0.01F, 0.1F, 1e-10F,
                                0.2F, 0.25F);
    for (std::size_t i = 0; i < p.size(); ++i) {
      const double gradient = 0.5 * value(g[i]);
      const double first = 0.8 * value(m0[i]) + 0.2 * gradient;
      const double second = 0.95 * value(v0[i]) + 0.05 * gradient * gradient;
      const double step = 0.01 / 0.2 * first / (std::sqrt(second) / 0.25 + 1e-10);
      expect_near(m[i], first, "first moment");
      expect_near(v[i], second, "second moment");
      expect_near(p[i], value(p0[i]) * (1.0 - 0.01 * 0.1) - step, "value", 3e-6);
      expect_near(copy[i], value(p[i]), "copy");
    }
  }
}

TEST_P(KernelLevels, MuonMomentumFollowsItsFormula) {
  for (const bool nesterov : {true, false}) {
    for (const std::int64_t n : {1, 33, 1024, 1025, 2500}) {
      const auto m0 = random_row<float>(n, 1), g = random_row<float>(n, 2);
      auto m = m0, again = m0;
      std::vector<bf16> narrow(m.size());
      std::vector<float> wide(m.size()), exact(m.size());
      const auto step = GetParam().optimizer->muon_momentum;
      const double squares16 = step(m.data(), g.data(), narrow.data(), wide.data(), n, 0.5F, 0.9F, nesterov);
      const double squares32 = step(again.data(), g.data(), nullptr, exact.data(), n, 0.5F, 0.9F, nesterov);
      EXPECT_EQ(m, again);
      double sum16 = 0.0, sum32 = 0.0;
      for (std::size_t i = 0; i < m.size(); ++i) {
        const double gradient = 0.5 * value(g[i]), updated = 0.9 * value(m0[i]) + 0.1 * gradient;
        const double direction = nesterov ? 0.1 * gradient + 0.9 * updated : updated;
        expect_near(m[i], updated, "buffer");
        expect_near(exact[i], direction, "direction");
        expect_near(narrow[i], direction, "rounded direction");
        EXPECT_EQ(value(wide[i]), value(narrow[i]));  // as it was rounded
        sum16 += value(narrow[i]) * value(narrow[i]);
        sum32 += value(exact[i]) * value(exact[i]);
      }
      EXPECT_NEAR(squares16, sum16, 1e-5 * sum16);
      EXPECT_NEAR(squares32, sum32, 1e-5 * sum32);
      EXPECT_NEAR(GetParam().optimizer->sum_of_squares(exact.data(), n), sum32, 1e-5 * sum32);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Levels, KernelLevels, ::testing::ValuesIn(levels()),
                         [](const auto& level) { return level.param.name; });

TEST(KernelLevel, IsTheBestUnlessTheEnvironmentAsksForLess) {
  const char* wish = std::getenv("NANOCHAT_CPU");
  const std::string expected = wish == nullptr ? levels().back().name : std::string(wish);
  EXPECT_EQ(kernel_level(), expected);
}

}  // namespace
}  // namespace nanochat::ops::cpu
