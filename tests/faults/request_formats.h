#pragma once
// Requests to the server as formats (formats.h): bytes of a connection, and bodies of each protocol. A request is read by the
// parser of connections and answered by Api, whose engine says the same text each time.

#include <vector>

#include "formats.h"

namespace nanochat::testing {

std::vector<Format> request_formats();

}  // namespace nanochat::testing
