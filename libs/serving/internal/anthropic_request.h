#pragma once
// Parses the bodies of POST /v1/messages and /v1/messages/count_tokens, which are Anthropic's, into the struct of a chat. Throws
// ApiError (status 400), and the error names the field.
//
// Content blocks of the types text, tool_use and tool_result are read; the text blocks of a message are joined. A field that
// would change the answer and is not supported is refused. cache_control has no effect: prefixes are always cached.

#include <string_view>

#include "serving/internal/api_request.h"

namespace nanochat {

// `count` is set for count_tokens, whose body has no max_tokens.
ChatRequest parse_anthropic_request(std::string_view body, const RequestDefaults& defaults, bool count = false);

}  // namespace nanochat
