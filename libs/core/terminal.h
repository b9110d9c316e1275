#pragma once
// What a file descriptor supports besides text.

namespace nanochat {

// True for a terminal that understands control sequences; false with TERM=dumb.
bool is_terminal(int fd);
// True for such a terminal unless the user disables colours with NO_COLOR (https://no-color.org: set and not empty).
bool wants_color(int fd);

}  // namespace nanochat
