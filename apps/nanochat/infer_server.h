#pragma once
// `nanochat infer --server URL`: prompts and chats answered by a server instead of a model in this process.

#include <string>
#include <vector>

#include "command_line.h"
#include "infer_chat.h"
#include "inference/generator.h"
#include "prompts_file.h"

namespace nanochat::cli {

struct ServerArguments {
  std::string url;      // empty: no server
  std::string api_key;
  std::string model;    // empty: the server's own
};

// Answers the prompts and writes the results. One prompt alone is streamed; of several, options.max_running are answered at a
// time, and written in their order. `echo` writes a prompt of text before its completion.
ExitCode answer_by_server(const ServerArguments& server, const GenerationOptions& options, bool echo, const Context& context,
                          const std::vector<Prompt>& prompts);

// The model of a chat, behind a server.
std::unique_ptr<ChatModel> server_chat_model(const ServerArguments& server, const GenerationOptions& options);

}  // namespace nanochat::cli
