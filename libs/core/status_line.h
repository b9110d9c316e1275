#pragma once
// Internal to core: the redrawn lines (mostly one) of a terminal, shared by the progress bar, which draws it, and the log,
// which must write above it. All writes to a terminal go through here, under one lock. Thread-safe.

#include <functional>
#include <string>
#include <string_view>

namespace nanochat::status_line {

// Replaces the line, or the lines where `text` holds newlines; each must fit the terminal's width.
void draw(int fd, std::string_view text);
// Ends them: leaves `text` standing as an ordinary one.
void finish(int fd, std::string_view text);
// Takes them away, calls `write`, and draws it again.
void write_above(const std::function<void()>& write);
// Writes all of `text`; errors are ignored, as there is nowhere left to report them.
void write_all(int fd, std::string_view text);

}  // namespace nanochat::status_line
