#pragma once
// Internal to distributed: creates the process groups of c10d. Each has its own source file, because the headers are slow to
// compile. A build without the headers of one uses gloo_none.cpp or nccl_none.cpp instead.

#include <ATen/core/Tensor.h>

#include <string>

#include <c10/util/intrusive_ptr.h>

#include "distributed/failure.h"

namespace c10d {
class Backend;
class Store;
}  // namespace c10d

namespace nanochat::distributed {

struct GroupPlace {
  int rank, size;
  Milliseconds timeout;
};

// `address`: the address of this machine that other ranks can reach. GLOO_SOCKET_IFNAME takes precedence if it is set. Throws
// ConfigError in a build without Gloo's headers.
c10::intrusive_ptr<c10d::Backend> make_gloo_group(const c10::intrusive_ptr<c10d::Store>& store, const GroupPlace& place,
                                                  const std::string& address);

// Connects immediately. Throws ConfigError in a build without CUDA or NCCL's header.
c10::intrusive_ptr<c10d::Backend> make_nccl_group(const c10::intrusive_ptr<c10d::Store>& store, const GroupPlace& place,
                                                  at::Device device);

}  // namespace nanochat::distributed
