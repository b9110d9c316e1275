#pragma once
// Server-sent events (HTML Living Standard, section 9.2, https://html.spec.whatwg.org/multipage/server-sent-events.html): turns
// bytes, in pieces of any size, into the data of events. Not thread-safe.
//
//   EventStream events;
//   for (const std::string& data : events.push(bytes)) ...

#include <string>
#include <string_view>
#include <vector>

namespace nanochat {

class EventStream {
 public:
  // Returns the data of the events that these bytes complete. Comments, names and ids are skipped. Throws DataError for a line
  // or an event of more than 16 MiB.
  std::vector<std::string> push(std::string_view bytes);

 private:
  void take_line(std::string_view line, std::vector<std::string>& complete);

  std::string pending_;  // the beginning of a line
  std::string data_;  // of the event so far, each line with its line feed
};

}  // namespace nanochat
