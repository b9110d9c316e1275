#include "runtime/versions.h"

namespace nanochat {

const char* program_version() { return NANOCHAT_VERSION; }
const char* libtorch_version() { return NANOCHAT_LIBTORCH_VERSION; }

}  // namespace nanochat
