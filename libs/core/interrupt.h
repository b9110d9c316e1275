#pragma once
// Sets a flag on SIGINT, SIGTERM and SIGHUP; long loops check it, save and stop. A second SIGINT or SIGTERM
// exits at once with code 130. SIGHUP stays ignored if it is ignored when the process starts (nohup).

namespace nanochat {

void install_interrupt_handlers();  // apps/ only; idempotent
bool interrupt_requested();
void clear_interrupt();  // after the request was handled, for example by stopping one answer of a chat
void reset_interrupt_for_testing();

}  // namespace nanochat
