#pragma once
// What may be written to a file descriptor besides text.

namespace nanochat {

// A terminal that understands control sequences: not one with TERM=dumb.
bool is_terminal(int fd);
// Such a terminal, unless the user asks for none by NO_COLOR (https://no-color.org: set and not empty).
bool wants_color(int fd);

}  // namespace nanochat
