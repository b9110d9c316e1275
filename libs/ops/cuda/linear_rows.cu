// Products of a few rows with a matrix of weights, which are bound by reading the weights. Each number is read once, 16
// bytes at a time, straight into the registers that tensor cores take it from: a sum does not care in which order its terms
// come, so the sixteen numbers that a lane reads in a row of the weights become its share of four products, and the same
// sixteen of a row of x the other factor.
//
// A block of threads takes a few columns of y; its warps share out the inner dimension and their sums are added up in the
// order of the warps. That order depends on the inner dimension alone, and rows are the rows of the products' left factor:
// a row comes out the same whatever rows stand beside it and however many.

#include "device_code.cuh"
#include "tensor_cores.cuh"

namespace nanochat::ops::cuda {
namespace {

using u32 = std::uint32_t;

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kStep = 64;    // of the inner dimension, that a warp takes at a time: 16 numbers for each lane of a quad
constexpr int kAtOnce = 4;   // such steps whose loads are under way together

struct Shape {
  i64 x_stride, w_stride, y_stride;
  int rows, m, k;
};

// 8 numbers of bfloat16, not kept in the first-level cache when they are read once.
__device__ inline uint4 load_once(const bf16* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}

// Sixteen numbers: what a lane has of a row in a step, 8 of its first half and 8 of its second. The lanes of a quad read
// neighbouring ones.
struct Lane16 {
  u32 pair[8];
};
template <bool kOnce>
__device__ inline Lane16 load16(const bf16* row, int k, int end, bool inside) {
  Lane16 lane = {};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (!inside || k + kStep / 2 * half >= end) continue;
    const bf16* from = row + k + kStep / 2 * half;
    const uint4 v = kOnce ? load_once(from) : *reinterpret_cast<const uint4*>(from);
    lane.pair[4 * half] = v.x;
    lane.pair[4 * half + 1] = v.y;
    lane.pair[4 * half + 2] = v.z;
    lane.pair[4 * half + 3] = v.w;
  }
  return lane;
}

// kTiles: tiles of 16 rows; kColumns: tiles of 8 columns of a block.
template <int kTiles, int kColumns>
__global__ void __launch_bounds__(kThreads) linear_rows_bf16(const bf16* __restrict__ x, const bf16* __restrict__ w,
                                                             bf16* __restrict__ y, const Shape shape) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int quad_row = lane / 4, quad = lane % 4;
  const int first = static_cast<int>(blockIdx.x) * 8 * kColumns;
  const int steps = (shape.k + kStep - 1) / kStep;
  float sums[kTiles][kColumns][4] = {};
  for (int step = warp; step < steps; step += kWarps * kAtOnce) {
    Lane16 weights[kAtOnce][kColumns];
#pragma unroll
    for (int a = 0; a < kAtOnce; ++a) {
      const int k = (step + a * kWarps) * kStep + 8 * quad;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const int column = first + 8 * c + quad_row;
        weights[a][c] = load16<true>(w + column * shape.w_stride, k, shape.k, column < shape.m);
      }
    }
#pragma unroll
    for (int a = 0; a < kAtOnce; ++a) {
      if (step + a * kWarps >= steps) break;
      const int k = (step + a * kWarps) * kStep + 8 * quad;
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const int row = 16 * t + quad_row;
        const Lane16 upper = load16<false>(x + row * shape.x_stride, k, shape.k, row < shape.rows);
        const Lane16 lower = load16<false>(x + (row + 8) * shape.x_stride, k, shape.k, row + 8 < shape.rows);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const u32 left[4] = {upper.pair[2 * i], lower.pair[2 * i], upper.pair[2 * i + 1], lower.pair[2 * i + 1]};
#pragma unroll
          for (int c = 0; c < kColumns; ++c) {
            multiply_add(sums[t][c], left, weights[a][c].pair[2 * i], weights[a][c].pair[2 * i + 1]);
          }
        }
      }
    }
  }

  constexpr int kRows = 16 * kTiles, kWidth = 8 * kColumns;
  __shared__ float partial[kWarps][kRows][kWidth];
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      *reinterpret_cast<float2*>(&partial[warp][16 * t + quad_row][8 * c + 2 * quad]) =
          make_float2(sums[t][c][0], sums[t][c][1]);
      *reinterpret_cast<float2*>(&partial[warp][16 * t + quad_row + 8][8 * c + 2 * quad]) =
          make_float2(sums[t][c][2], sums[t][c][3]);
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kWidth; i += kThreads) {
    const int row = i / kWidth, column = i % kWidth;
    if (row >= shape.rows || first + column >= shape.m) continue;
    float sum = 0.0F;
#pragma unroll
    for (int other = 0; other < kWarps; ++other) sum += partial[other][row][column];
    from_float(sum, y[row * shape.y_stride + first + column]);
  }
}

// float32: a warp takes one column for up to kFloatRows rows; a lane every 32nd group of four numbers.
constexpr int kFloatRows = 8;
__global__ void __launch_bounds__(kThreads) linear_rows_float(const float* __restrict__ x, const float* __restrict__ w,
                                                              float* __restrict__ y, const Shape shape) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int column = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32;
  const int first = static_cast<int>(blockIdx.y) * kFloatRows, rows = min(kFloatRows, shape.rows - first);
  if (column >= shape.m) return;
  const float* const weights = w + column * shape.w_stride;
  const float* const from = x + first * shape.x_stride;
  float sums[kFloatRows] = {};
  for (int k = 4 * lane; k < shape.k; k += 128) {
    const float4 a = __ldg(reinterpret_cast<const float4*>(weights + k));
#pragma unroll
    for (int r = 0; r < kFloatRows; ++r) {
      if (r >= rows) break;
      const float4 b = *reinterpret_cast<const float4*>(from + r * shape.x_stride + k);
      sums[r] += a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
    }
  }
#pragma unroll
  for (int r = 0; r < kFloatRows; ++r) {
    const float sum = warp_sum(sums[r]);
    if (lane == 0 && r < rows) y[(first + r) * shape.y_stride + column] = sum;
  }
}

}  // namespace

bool linear_rows_takes(Element type, const void* x, i64 x_stride, const void* w, i64 w_stride, i64 k) {
  const i64 pack = type == Element::kFloat ? kPackSize<float> : kPackSize<bf16>;
  return aligned(x) && aligned(w) && x_stride % pack == 0 && w_stride % pack == 0 && k % pack == 0;
}

void linear_rows(Element type, const void* x, i64 x_stride, const void* w, i64 w_stride, void* y, i64 y_stride, i64 rows, i64 m,
                 i64 k, Stream stream) {
  if (rows == 0 || m == 0) return;
  if (rows > kMostLinearRows) throw std::runtime_error("linear_rows takes no more than 64 rows");
  const Shape shape = {x_stride, w_stride, y_stride, static_cast<int>(rows), static_cast<int>(m), static_cast<int>(k)};
  if (type == Element::kFloat) {
    const dim3 grid(blocks_for(m, kWarps), blocks_for(rows, kFloatRows));
    launch(&linear_rows_float, grid, kThreads, 0, stream, static_cast<const float*>(x), static_cast<const float*>(w),
           static_cast<float*>(y), shape);
  } else {
    const auto run = [&]<int kTiles, int kColumns>(std::integral_constant<int, kTiles>, std::integral_constant<int, kColumns>) {
      launch(&linear_rows_bf16<kTiles, kColumns>, blocks_for(m, 8 * kColumns), kThreads, 0, stream, static_cast<const bf16*>(x),
             static_cast<const bf16*>(w), static_cast<bf16*>(y), shape);
    };
    using One = std::integral_constant<int, 1>;
    using Two = std::integral_constant<int, 2>;
    if (rows <= 16) {
      run(One(), One());
    } else if (rows <= 32) {
      run(Two(), One());
    } else {
      run(std::integral_constant<int, 4>(), Two());
    }
  }
  check_launch("linear_rows");
}

}  // namespace nanochat::ops::cuda
