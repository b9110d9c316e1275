#pragma once
// How this process takes memory from the kernel. Tensors of 2 MiB and more lie on pages of 2 MiB (transparent huge pages):
// weights are then read at the speed of memory instead of that of the page tables (two cores of a Zen 4: 55 instead of
// 25 GB/s). And what is freed stays for the next one like it: a step of training or of serving makes and drops the same
// buffers, and the kernel would clear each of them anew.

namespace nanochat {

// To be called before the first tensor is made (LibTorch's allocator looks once), while there is one thread. A user's own
// THP_MEM_ALLOC_ENABLE, MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_ stay. Nothing comes of the first part where the
// kernel has no such pages (/sys/kernel/mm/transparent_hugepage/enabled says "never"), of the second without glibc.
void prepare_host_memory();

}  // namespace nanochat
