// libFuzzer's entry for one format: anything but a result or an Error ends the fuzzer.
#include <cstddef>
#include <cstdint>
#include <string>

#include "core/errors.h"
#include "formats.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const nanochat::testing::Format& format = nanochat::testing::format_of(NANOCHAT_FUZZ_FORMAT);
  try {
    format.read(std::string(static_cast<const char*>(static_cast<const void*>(data)), size));
  } catch (const nanochat::Error&) {
  }
  return 0;
}
