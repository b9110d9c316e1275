#pragma once
// Internal to distributed: c10d's groups. One translation unit each, since their headers are heavy. Where a build has
// not the headers of one, gloo_none.cpp or nccl_none.cpp takes its place.

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

// `address`: of this machine, at which the other ranks reach it. GLOO_SOCKET_IFNAME, where set, goes before it. Throws
// ConfigError in a build without Gloo's headers.
c10::intrusive_ptr<c10d::Backend> make_gloo_group(const c10::intrusive_ptr<c10d::Store>& store, const GroupPlace& place,
                                                  const std::string& address);

// Connects at once. Throws ConfigError in a build without CUDA or NCCL's header.
c10::intrusive_ptr<c10d::Backend> make_nccl_group(const c10::intrusive_ptr<c10d::Store>& store, const GroupPlace& place,
                                                  at::Device device);

}  // namespace nanochat::distributed
