#include <cstdlib>

#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "distributed/process_group.h"

namespace nanochat::distributed {

c10::intrusive_ptr<c10d::Backend> make_gloo_group(const c10::intrusive_ptr<c10d::Store>& store, const GroupPlace& place,
                                                  const std::string& address) {
  using c10d::ProcessGroupGloo;
  const auto options = ProcessGroupGloo::Options::create(place.timeout);
  const char* interface = std::getenv("GLOO_SOCKET_IFNAME");
  options->devices.push_back(interface != nullptr && *interface != '\0' ? ProcessGroupGloo::createDeviceForInterface(interface)
                                                                        : ProcessGroupGloo::createDeviceForHostname(address));
  return c10::make_intrusive<ProcessGroupGloo>(store, place.rank, place.size, options);
}

}  // namespace nanochat::distributed
