#pragma once
// Instructions of compute capability 9.0 and later: copies of many bytes to shared memory that one thread starts and a barrier
// in shared memory counts, and stores to the shared memory of other blocks of a cluster, which a barrier there counts. Each is
// one or two PTX instructions.
//
//   if (threadIdx.x == 0) {
//     init_barrier(&barrier); publish_barriers();
//     expect_bytes(&barrier, bytes); copy_bulk(to, from, bytes, &barrier);
//   }
//   __syncthreads();               // the barrier exists
//   wait_barrier(&barrier, 0);     // the bytes are there; 1 for the second use of the barrier, and so on in turn

#include <cstdint>

#include "tensor_cores.cuh"

namespace nanochat::ops::cuda {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900

// A barrier that one thread arrives at, by expect_bytes().
__device__ inline void init_barrier(std::uint64_t* barrier) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;\n" ::"r"(shared_address(barrier)) : "memory");
}
// Makes barriers that this thread has initialised known to the unit that copies.
__device__ inline void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;\n" ::: "memory");
}
// The barrier's phase ends when so many bytes have arrived.
__device__ inline void expect_bytes(std::uint64_t* barrier, std::uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}
__device__ inline void wait_barrier(std::uint64_t* barrier, std::uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "WAIT:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra WAIT;\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}
// `bytes`, a multiple of 16 as both addresses are, from global memory to shared memory of this block. They are read once: the
// second-level cache gives their place up first.
__device__ inline void copy_bulk(void* to, const void* from, std::uint32_t bytes, std::uint64_t* barrier) {
  const std::uint64_t policy = read_once();
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;\n" ::"r"(
          shared_address(to)),
      "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(shared_address(barrier)), "l"(policy)
      : "memory");
}

// Between these, all blocks of the cluster begin to run, and so their shared memory may be stored to; barriers that were
// published before arrive_cluster() are known to all after wait_cluster(). All threads of a warp call them together.
__device__ inline void arrive_cluster() {
  __syncwarp();
  asm volatile("barrier.cluster.arrive.relaxed.aligned;\n" ::: "memory");
}
__device__ inline void wait_cluster() {
  __syncwarp();
  asm volatile("barrier.cluster.wait.acquire.aligned;\n" ::: "memory");
}
// Where block `rank` of the cluster has what lies at p in this one.
__device__ inline std::uint32_t address_in_rank(const void* p, int rank) {
  std::uint32_t address;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;\n" : "=r"(address) : "r"(shared_address(p)), "r"(rank));
  return address;
}
// Stores where block `rank` has p; its barrier counts the bytes. Unlike a barrier of the cluster, this waits for no other
// memory access. The block must not end before it has waited for all that is stored there.
__device__ inline void store_in_rank(float* p, int rank, float x, std::uint64_t* barrier) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.f32 [%0], %1, [%2];\n" ::"r"(address_in_rank(p,
                                                                                                                        rank)),
               "f"(x), "r"(address_in_rank(barrier, rank))
               : "memory");
}
__device__ inline void store_in_rank(float2* p, int rank, float2 x, std::uint64_t* barrier) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];\n" ::"r"(
                   address_in_rank(p, rank)),
               "f"(x.x), "f"(x.y), "r"(address_in_rank(barrier, rank))
               : "memory");
}
__device__ inline void store_in_rank(float4* p, int rank, float4 x, std::uint64_t* barrier) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];\n" ::"r"(
                   address_in_rank(p, rank)),
               "f"(x.x), "f"(x.y), "f"(x.z), "f"(x.w), "r"(address_in_rank(barrier, rank))
               : "memory");
}
// wait_barrier() for what other blocks store.
__device__ inline void wait_stores(std::uint64_t* barrier, std::uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "WAIT:\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra WAIT;\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

#endif

}  // namespace nanochat::ops::cuda
