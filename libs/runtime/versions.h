#pragma once
// Versions of this build; stored with every checkpoint, shown by `nanochat info`.

namespace nanochat {

const char* program_version();   // "0.1.0"
const char* libtorch_version();  // "2.11.0", of the linked headers and libraries

}  // namespace nanochat
