#pragma once
// Origins of web pages (RFC 6454), as browsers write them in the header "Origin".

#include <string>
#include <string_view>

namespace nanochat {

// What a browser sends for the origin that a person means: scheme and host in lower case, without the port that the scheme has
// anyway and without a slash at the end. "*" (any) and "null" (a page from a file) stay. Throws ConfigError, which says what
// would be right, for what no browser sends: an address without a scheme or with a path, a pattern.
std::string normalized_origin(std::string_view text);

}  // namespace nanochat
