// Products of some rows with a matrix of weights, for which compute capability 9.0 or later is needed. The inner dimension is
// cut into slices, and the blocks of threads that have the slices of the same columns of y are a cluster. A block therefore
// reads only its slice of x, which with columns alone every block would read whole: with 32 rows that is more than its weights.
//
// A block takes 64 columns of y, or 128 for many rows. Its last warp copies weights and rows of x to shared memory through tensor maps, in stages of
// 64 numbers of the inner dimension; the weights of the first stages are on their way before the kernel in front of this one has
// ended. The other warps multiply: columns of y are the rows of the left factor, rows of x the columns of the right one. Each
// block stores its sums in the shared memory of the block that adds them up, in the order of the slices.
//
// The order of a sum depends on the shape of the weights alone.

#include <cudaTypedefs.h>

#include <algorithm>

#include "bulk_copies.cuh"
#include "device_code.cuh"
#include "linear_parts.cuh"
#include "tensor_cores.cuh"

namespace nanochat::ops::cuda {
namespace {

constexpr int kStep = 64;  // of the inner dimension, in a stage
constexpr int kGroupWarps = 4, kGroupColumns = 64;  // of a group of warps that multiply together
constexpr int kFewSlicedRows = 64;  // that a block with one group of warps takes
constexpr int kMostSlices = 8;  // blocks of a cluster
constexpr int kRowBytes = kStep * static_cast<int>(sizeof(bf16));  // of a tile: 128, the width of its swizzle
constexpr int kTileAlignment = 1024;  // of a swizzled tile

struct Slicing {
  std::int32_t slices;
  std::int32_t steps;  // of the inner dimension
  std::int32_t stages;  // that have room in shared memory
};

// kGroups: of warps of a block; kRows: of x that a block takes.
template <int kGroups, int kRows>
struct Sliced {
  static constexpr int kColumns = kGroups * kGroupColumns, kWarps = kGroups * kGroupWarps;
  static constexpr int kMultiplying = 32 * kWarps, kThreads = kMultiplying + 32;
};

// What a block has in shared memory behind the stages: where it begins, in bytes from the first stage on.
template <int kGroups, int kRows>
struct SlicedLayout {
  static constexpr int kColumns = Sliced<kGroups, kRows>::kColumns, kWeights = kColumns * kRowBytes,
                       kStage = kWeights + kRows * kRowBytes;
  static constexpr int kPitch = kRows + 2;  // of sums: those of neighbouring columns lie in different banks
  static constexpr int kLanding = kColumns * kPitch * static_cast<int>(sizeof(float));

  int slices, stages;
  // float (slices, columns / slices, kPitch): every slice's sums of the columns that this block finishes.
  __host__ __device__ int landing() const { return stages * kStage; }
  __host__ __device__ int squares() const { return landing() + kLanding; }  // float (slices, kRows): of each slice of x
  __host__ __device__ int barriers() const {  // of full stages, of empty stages, of what lands here
    return squares() + slices * kRows * static_cast<int>(sizeof(float));
  }
  __host__ __device__ int bytes() const { return barriers() + (2 * stages + 1) * static_cast<int>(sizeof(std::uint64_t)); }
};

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900

// A tile of kStep numbers of some rows, from element (k, row) on. What lies outside of the matrix is 0.
__device__ inline void copy_tile(void* to, const CUtensorMap& map, int k, int row, std::uint64_t* barrier, bool once) {
  if (once) {
    std::uint64_t policy;
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;\n" : "=l"(policy));
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint "
        "[%0], [%1, {%2, %3}], [%4], %5;\n" ::"r"(shared_address(to)),
        "l"(&map), "r"(k), "r"(row), "r"(shared_address(barrier)), "l"(policy)
        : "memory");
  } else {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];\n" ::"r"(
            shared_address(to)),
        "l"(&map), "r"(k), "r"(row), "r"(shared_address(barrier))
        : "memory");
  }
}

// Sums of a warp: sums[4 * j + 2 * h + i] is of column lane / 4 + 8 * h of its 16 and row 8 * j + 2 * (lane % 4) + i.
template <int kRows>
struct SlicedSums {
  float sums[kRows / 2];

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  // The matrices of a warp group's products in shared memory: rows of 128 bytes, swizzled, in groups of 8 that follow each
  // other.
  __device__ static std::uint64_t descriptor(const void* tile) {
    constexpr std::uint64_t kGroup = 8 * kRowBytes / 16, kSwizzle128 = 1;
    return (shared_address(tile) & 0x3ffffU) >> 4U | std::uint64_t{1} << 16U | kGroup << 32U | kSwizzle128 << 62U;
  }
  // Begins the products of a stage.
  __device__ void begin(const unsigned char* weights, const unsigned char* x, bool first) {
    const std::uint64_t left = descriptor(weights), right = descriptor(x);
    asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
#pragma unroll
    for (int k = 0; k < kStep / 16; ++k) multiply(left + 2 * k, right + 2 * k, first && k == 0 ? 0 : 1);
    asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
  }
  // Waits until the products of at most kPending stages are under way.
  template <int kPending>
  __device__ void wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(kPending) : "memory");
    if constexpr (kPending == 0) {
#pragma unroll
      for (float& sum : sums) asm volatile("" : "+f"(sum)::"memory");
    }
  }

 private:
  // add: 0 where the sums are new.
  __device__ void multiply(std::uint64_t left, std::uint64_t right, int add) {
    float* const d = sums;
    if constexpr (kRows == 8) {
      asm volatile(
          "{\n.reg .pred p;\nsetp.ne.b32 p, %6, 0;\n"
          "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, %5, p, 1, 1, 0, 0;\n}\n"
          : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
          : "l"(left), "l"(right), "r"(add));
    } else if constexpr (kRows == 16) {
      asm volatile(
          "{\n.reg .pred p;\nsetp.ne.b32 p, %10, 0;\n"
          "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7}, %8, %9, p, 1, 1, 0, 0;\n}\n"
          : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7])
          : "l"(left), "l"(right), "r"(add));
    } else if constexpr (kRows == 32) {
      asm volatile(
          "{\n.reg .pred p;\nsetp.ne.b32 p, %18, 0;\n"
          "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, "
          "%14, %15}, %16, %17, p, 1, 1, 0, 0;\n}\n"
          : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]),
            "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15])
          : "l"(left), "l"(right), "r"(add));
    } else if constexpr (kRows == 64) {
      asm volatile(
          "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
          "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, "
          "%14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, %32, %33, p, 1, 1, 0, "
          "0;\n}\n"
          : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]),
            "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]),
            "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]),
            "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
          : "l"(left), "l"(right), "r"(add));
    } else {
      static_assert(kRows == 128);
      asm volatile(
          "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
          "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, "
          "%14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, "
          "%37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, "
          "%60, %61, %62, %63}, %64, %65, p, 1, 1, 0, 0;\n}\n"
          : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]),
            "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]),
            "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]),
            "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]),
            "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]),
            "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]),
            "+f"(d[54]), "+f"(d[55]), "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]),
            "+f"(d[63])
          : "l"(left), "l"(right), "r"(add));
    }
  }
#else
  // The same by the instructions of one warp, which later chips have, too.
  __device__ static const void* chunk_of(const unsigned char* tile, int row, int chunk) {
    return tile + row * kRowBytes + ((chunk ^ (row & 7)) << 4);
  }
  __device__ void begin(const unsigned char* weights, const unsigned char* x, bool first) {
    if (first) {
#pragma unroll
      for (float& sum : sums) sum = 0.0F;
    }
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int k = 0; k < kStep / 16; ++k) {
      u32 left[4];
      load_matrices(left, chunk_of(weights, 16 * (warp % kGroupWarps) + lane % 16, 2 * k + lane / 16));
#pragma unroll
      for (int j = 0; j < kRows / 8; j += 2) {
        u32 right[4];
        const int row = 8 * j + lane % 8 + (kRows > 8 ? lane / 16 * 8 : 0);
        load_matrices(right, chunk_of(x, row, 2 * k + lane / 8 % 2));
        multiply_add(*reinterpret_cast<float(*)[4]>(sums + 4 * j), left, right[0], right[1]);
        if constexpr (kRows > 8) multiply_add(*reinterpret_cast<float(*)[4]>(sums + 4 * j + 4), left, right[2], right[3]);
      }
    }
  }
  template <int kPending>
  __device__ void wait() {
    __syncwarp();
  }
#endif
};

#endif

template <int kGroups, int kRows>
__global__ void __launch_bounds__((Sliced<kGroups, kRows>::kThreads), kGroups == 1 ? 2 : 1)
    linear_sliced_kernel(const __grid_constant__ LinearRows p, const __grid_constant__ CUtensorMap weights_map,
                         const __grid_constant__ CUtensorMap x_map, const __grid_constant__ Slicing slicing) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  using Kind = Sliced<kGroups, kRows>;
  using Layout = SlicedLayout<kGroups, kRows>;
  constexpr int kColumns = Kind::kColumns, kWarps = Kind::kWarps, kMultiplying = Kind::kMultiplying;
  extern __shared__ __align__(128) unsigned char unaligned[];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  unsigned char* const shared = unaligned + (kTileAlignment - shared_address(unaligned) % kTileAlignment) % kTileAlignment;
  const int slices = slicing.slices, stages = slicing.stages, rank = static_cast<int>(blockIdx.y);
  const Layout layout = {slices, stages};
  auto* const landing = reinterpret_cast<float*>(shared + layout.landing());
  auto* const all_squares = reinterpret_cast<float*>(shared + layout.squares());
  auto* const full = reinterpret_cast<std::uint64_t*>(shared + layout.barriers());
  auto* const empty = full + stages;
  auto* const landed = empty + stages;
  // This block's columns of y, rows of x, and steps of the inner dimension.
  const int first_column = static_cast<int>(blockIdx.x) * kColumns, first_row = static_cast<int>(blockIdx.z) * kRows;
  const int rows = min(kRows, p.rows - first_row);
  const int each = slicing.steps / slices, longer = slicing.steps % slices;
  const int first_step = rank * each + min(rank, longer), steps = each + (rank < longer ? 1 : 0);
  const bool normalise = p.norm_eps >= 0.0F;
  const auto weights_at = [&](int stage) { return shared + stage * Layout::kStage; };
  const auto x_at = [&](int stage) { return shared + stage * Layout::kStage + Layout::kWeights; };

  let_next_begin();
  const auto copy_weights = [&](int step) {
    const int stage = step % stages;
    expect_bytes(full + stage, Layout::kStage);
    copy_tile(weights_at(stage), weights_map, (first_step + step) * kStep, first_column, full + stage, true);
  };
  const auto copy_x = [&](int step) {
    const int stage = step % stages;
    copy_tile(x_at(stage), x_map, (first_step + step) * kStep, first_row, full + stage, false);
  };
  if (warp == kWarps) {
    if (lane == 0) {
      for (int stage = 0; stage < stages; ++stage) {
        init_barrier(full + stage);
        init_barrier(empty + stage, kWarps);
      }
      init_barrier(landed);
      publish_barriers();
      for (int step = 0; step < min(steps, stages); ++step) copy_weights(step);
      expect_bytes(landed, static_cast<u32>((kColumns + (normalise ? slices : 0)) * kRows * static_cast<int>(sizeof(float))));
    }
    __syncwarp();
    fetch_ahead(p);
  }
  __syncthreads();
  arrive_cluster();  // this block's shared memory may be stored to
  wait_for_previous();

  if (warp == kWarps) {
    if (lane == 0) {
      for (int step = 0; step < min(steps, stages); ++step) copy_x(step);
      for (int step = stages; step < steps; ++step) {
        wait_barrier(empty + step % stages, static_cast<u32>(step / stages - 1) & 1U);
        copy_weights(step);
        copy_x(step);
      }
    }
    __syncwarp();
    wait_cluster();
    return;
  }

  // What this thread finishes: elements of (rows, columns / slices) of y.
  constexpr int kMostShare = kColumns * kRows / kMultiplying;
  const int own = kColumns / slices;
  const auto for_each_own = [&](const auto& body) {
#pragma unroll
    for (int i = 0; i < kMostShare; ++i) {
      const int at = thread + i * kMultiplying, place = at % own, row = at / own;
      const int column = first_column + rank * own + place;
      if (row < rows && column < p.m) {
        body(i, place, row, static_cast<bf16*>(p.y) + (first_row + row) * p.y_stride + column);
      }
    }
  };
  float before[kMostShare] = {};
  if (p.add) for_each_own([&](int i, int, int, const bf16* to) { before[i] = to_float(__ldcg(to)); });

  SlicedSums<kRows> own_sums;
  // Squares of chunks of 16 bytes of x: of chunk thread % 8 of the rows thread / 8, that plus 16 and so on.
  constexpr int kChunks = kRowBytes / 16, kRowsAtOnce = kMultiplying / kChunks,
                kTurns = (kRows + kRowsAtOnce - 1) / kRowsAtOnce;
  float squares[kTurns] = {};
  for (int step = 0; step < steps; ++step) {
    const int stage = step % stages;
    wait_barrier(full + stage, static_cast<u32>(step / stages) & 1U);
    own_sums.begin(weights_at(stage) + warp / kGroupWarps * kGroupColumns * kRowBytes, x_at(stage), step == 0);
    if (normalise) {
#pragma unroll
      for (int turn = 0; turn < kTurns; ++turn) {
        const int row = thread / kChunks + turn * kRowsAtOnce;
        if (row < kRows) {
          squares[turn] += squares_of(*reinterpret_cast<const uint4*>(x_at(stage) + row * kRowBytes + thread % kChunks * 16));
        }
      }
    }
    own_sums.template wait<1>();
    if (step > 0 && lane == 0) arrive(empty + (step - 1) % stages);
  }
  own_sums.template wait<0>();

  wait_cluster();
  {
    const int quad_row = lane / 4, quad = lane % 4;
#pragma unroll
    for (int j = 0; j < kRows / 8; ++j) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int column = 16 * warp + quad_row + 8 * half;
        auto* const to = reinterpret_cast<float2*>(landing + (rank * own + column % own) * Layout::kPitch + 8 * j + 2 * quad);
        store_in_rank(to, column / own, make_float2(own_sums.sums[4 * j + 2 * half], own_sums.sums[4 * j + 2 * half + 1]),
                      landed);
      }
    }
  }
  if (normalise) {
#pragma unroll
    for (int turn = 0; turn < kTurns; ++turn) {
      const int row = thread / kChunks + turn * kRowsAtOnce;
      const float sum = group_sum<kChunks>(squares[turn]);
      if (row < kRows && thread % kChunks < slices)
        store_in_rank(all_squares + rank * kRows + row, thread % kChunks, sum, landed);
    }
  }
  wait_stores(landed, 0);
  for_each_own([&](int i, int place, int row, bf16* to) {
    float sum = 0.0F, square = 0.0F;
    for (int other = 0; other < slices; ++other) {
      sum += landing[(other * own + place) * Layout::kPitch + row];
      if (normalise) square += all_squares[other * kRows + row];
    }
    finish(p, sum, square, before[i], *to);
  });
#endif
}

// The driver's function that describes a matrix to the unit that copies.
PFN_cuTensorMapEncodeTiled_v12000 tensor_map_encoder() {
  static const auto encoder = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    constexpr unsigned kVersion = 12000;
    const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, kVersion, cudaEnableDefault,
                                                               &found);
    if (error != cudaSuccess || found != cudaDriverEntryPointSuccess || function == nullptr) {
      throw std::runtime_error("the GPU's driver has no cuTensorMapEncodeTiled");
    }
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
  }();
  return encoder;
}

// Tiles of kStep numbers of `rows_at_once` rows of a matrix.
CUtensorMap map_of(const void* matrix, i64 stride, int rows, int k, int rows_at_once) {
  CUtensorMap map = {};
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(k), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(stride) * sizeof(bf16)};
  const cuuint32_t box[2] = {kStep, static_cast<cuuint32_t>(rows_at_once)}, steps[2] = {1, 1};
  const CUresult result = tensor_map_encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(matrix), sizes,
                                               strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) throw std::runtime_error("cuTensorMapEncodeTiled: error " + std::to_string(result));
  return map;
}

template <int kGroups, int kRows>
void launch_sliced(const LinearRows& p, int slices, Stream stream) {
  using Kind = Sliced<kGroups, kRows>;
  using Layout = SlicedLayout<kGroups, kRows>;
  Slicing s = {};
  s.steps = (p.k + kStep - 1) / kStep;
  s.slices = slices;
  const dim3 grid(blocks_for(p.m, Kind::kColumns), static_cast<unsigned>(s.slices), blocks_for(p.rows, kRows));
  // All blocks run at a time if shared memory allows it, and if possible one kernel uses at most half of it: the next one begins
  // beside it.
  const SharedMemory memory = shared_memory();
  const int blocks = static_cast<int>(grid.x * grid.y * grid.z), at_once = (blocks + multiprocessors() - 1) / multiprocessors();
  const int room = (kGroups > 1 ? memory.whole : std::min(memory.half, memory.whole / std::min(at_once, 3))) - kTileAlignment;
  s.stages = (s.steps + s.slices - 1) / s.slices;
  while (s.stages > 2 && Layout{s.slices, s.stages}.bytes() > room) --s.stages;
  const CUtensorMap weights_map = map_of(p.w, p.w_stride, p.m, p.k, Kind::kColumns),
                    x_map = map_of(p.x, p.x_stride, p.rows, p.k, kRows);
  const auto bytes = static_cast<std::size_t>(Layout{s.slices, s.stages}.bytes() + kTileAlignment);
  launch_clusters(&linear_sliced_kernel<kGroups, kRows>, grid, grid.y, Kind::kThreads, bytes, stream, p, weights_map, x_map, s);
}

// Slices of the inner dimension, with at least two steps in each.
int slices_of(const LinearRows& p) {
  const int steps = (p.k + kStep - 1) / kStep;
  const auto groups = [&](int columns) { return (p.m + columns - 1) / columns; };
  int slices = 1;
  const auto more = [&] { return slices < kMostSlices && steps >= 4 * slices; };
  if (p.rows <= kFewSlicedRows) {
    // As few as give every multiprocessor a block.
    while (more() && groups(kGroupColumns) * slices < multiprocessors()) slices *= 2;
  } else {
    // As many as there are multiprocessors for, which hold one block each.
    while (more() && groups(2 * kGroupColumns) * slices * 2 <= multiprocessors()) slices *= 2;
  }
  return slices;
}

}  // namespace

bool has_linear_sliced() { return overlaps_kernels(); }

bool linear_sliced_takes(Element type, const LinearRows& p) {
  constexpr i64 kPack = kPackSize<bf16>;
  return type == Element::kBFloat16 && has_linear_sliced() && p.k > 0 && aligned(p.x) && aligned(p.w) &&
         p.x_stride % kPack == 0 && p.w_stride % kPack == 0;
}

void linear_sliced(const LinearRows& p, Stream stream) {
  if (p.rows == 0 || p.m == 0) return;
  const int slices = slices_of(p);
  if (p.rows <= 8) {
    launch_sliced<1, 8>(p, slices, stream);
  } else if (p.rows <= 16) {
    launch_sliced<1, 16>(p, slices, stream);
  } else if (p.rows <= 32) {
    launch_sliced<1, 32>(p, slices, stream);
  } else if (p.rows <= kFewSlicedRows) {
    launch_sliced<1, 64>(p, slices, stream);
  } else {
    launch_sliced<2, 128>(p, slices, stream);
  }
  check_launch("linear_sliced");
}

}  // namespace nanochat::ops::cuda
