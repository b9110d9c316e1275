#pragma once
// Internal to core: the redrawn lines of a terminal (usually one). The progress bar draws them and
// the log writes above them. All writes to a terminal go through here under one lock. Thread-safe.

#include <functional>
#include <string>
#include <string_view>

namespace nanochat::status_line {

// Replaces the line, or the lines if `text` has newlines. Each must fit the terminal's width.
void draw(int fd, std::string_view text);
// Ends redrawing: leaves `text` as an ordinary line.
void finish(int fd, std::string_view text);
// Removes the lines, calls `write`, and draws them again.
void write_above(const std::function<void()>& write);
// Writes all of `text`. Errors are ignored, because there is nowhere to report them.
void write_all(int fd, std::string_view text);

}  // namespace nanochat::status_line
