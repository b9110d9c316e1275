#pragma once
// Settings for this process's memory. Tensors of 2 MiB and more use pages of 2 MiB (transparent
// huge pages), and weights are read at the speed of memory instead of the page tables (two
// cores of a Zen 4: 55 instead of 25 GB/s). Freed memory is kept for reuse, because each step
// allocates and frees the same buffers, and the kernel would clear each of them again.

namespace nanochat {

// Call this before the first tensor is created (LibTorch's allocator reads the setting once), while there is one
// thread. A user's THP_MEM_ALLOC_ENABLE, MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_ are kept. The first part has
// no effect without huge pages (/sys/kernel/mm/transparent_hugepage/enabled says "never"), the second without glibc.
void prepare_host_memory();
// Gives memory that is free, and that glibc keeps for reuse, back to the system. For a program that has freed a model.
void release_host_memory();

}  // namespace nanochat
