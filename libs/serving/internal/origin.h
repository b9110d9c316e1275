#pragma once
// Origins of web pages (RFC 6454), as browsers write them in the header "Origin".

#include <string>
#include <string_view>

namespace nanochat {

// Returns `text` as a browser would send it: scheme and host in lower case, without the default port of the scheme and without
// a slash at the end. "*" (any origin) and "null" (a page opened from a file) do not change. Throws ConfigError, which says
// what is expected, for text that no browser sends: an address without a scheme, an address with a path, or a pattern.
std::string normalized_origin(std::string_view text);

}  // namespace nanochat
