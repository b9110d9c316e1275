#pragma once
// SIGINT, SIGTERM and SIGHUP as a flag that long loops look at: the first asks to save and stop, a second SIGINT or SIGTERM
// ends the process at once with exit code 130. SIGHUP stays ignored where it is when the process starts (nohup).

namespace nanochat {

void install_interrupt_handlers();  // apps/ only; idempotent
bool interrupt_requested();
void clear_interrupt();  // the request was served another way, e.g. one answer of a conversation was stopped
void reset_interrupt_for_testing();

}  // namespace nanochat
