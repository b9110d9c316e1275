// In place of nccl_group.cpp where the build has no CUDA.
#include <torch/csrc/distributed/c10d/Backend.hpp>

#include "core/errors.h"
#include "distributed/process_group.h"

namespace nanochat::distributed {

c10::intrusive_ptr<c10d::Backend> make_nccl_group(const c10::intrusive_ptr<c10d::Store>&, const GroupPlace&, at::Device) {
  throw ConfigError(
      "this build has no CUDA backend, so its processes cannot share GPUs; use --device cpu, or configure with "
      "-DNANOCHAT_CUDA=ON");
}

}  // namespace nanochat::distributed
