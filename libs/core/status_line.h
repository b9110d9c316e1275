#pragma once
// Internal to core: the one redrawn line of a terminal, shared by the progress bar, which draws it, and the log,
// which must write above it. All writes to a terminal go through here, under one lock. Thread-safe.

#include <functional>
#include <string>
#include <string_view>

namespace nanochat::status_line {

// Replaces the line (no newline in `text`).
void draw(int fd, std::string_view text);
// Ends the line: leaves `text` standing as an ordinary one.
void finish(int fd, std::string_view text);
// Takes the line away, calls `write`, and draws it again.
void write_above(const std::function<void()>& write);
// Writes all of `text`; errors are ignored, as there is nowhere left to report them.
void write_all(int fd, std::string_view text);

}  // namespace nanochat::status_line
