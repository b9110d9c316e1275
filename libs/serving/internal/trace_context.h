#pragma once
// The header "traceparent" by which OpenTelemetry and other tracers connect the work of several programs (W3C Trace Context,
// https://www.w3.org/TR/trace-context/).

#include <optional>
#include <string>
#include <string_view>

namespace nanochat {

struct TraceContext {
  std::string trace_id;  // 32 hexadecimal digits
  std::string span_id;   // 16 hexadecimal digits: the caller's span. This server makes no span of its own
  std::string flags;     // 2 hexadecimal digits
  std::string traceparent() const { return "00-" + trace_id + "-" + span_id + "-" + flags; }
};

// Reads the header of version 00, and the part of a later version that is as in version 00. nullopt if it is not valid; the
// specification says to ignore it then.
std::optional<TraceContext> parse_traceparent(std::string_view header);

}  // namespace nanochat
