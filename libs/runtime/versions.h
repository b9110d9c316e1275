#pragma once
// What this program was built from: stored with every checkpoint, shown by `nanochat info`.

namespace nanochat {

const char* program_version();   // "0.1.0"
const char* libtorch_version();  // "2.11.0", of the headers and libraries that it was linked with

}  // namespace nanochat
