// In place of gloo_group.cpp where the build found no headers of Gloo.
#include <torch/csrc/distributed/c10d/Backend.hpp>

#include "core/errors.h"
#include "distributed/process_group.h"

namespace nanochat::distributed {

c10::intrusive_ptr<c10d::Backend> make_gloo_group(const c10::intrusive_ptr<c10d::Store>&, const GroupPlace&,
                                                  const std::string&) {
  throw ConfigError(
      "this build cannot run as several processes, since Gloo's headers were missing when it was made; install "
      "libgloo-dev (scripts/setup.sh does) and build again");
}

}  // namespace nanochat::distributed
