#include "client/event_stream.h"

#include <gmock/gmock.h>

#include "core/errors.h"

namespace nanochat {
namespace {

using ::testing::ElementsAre;

TEST(EventStream, GivesTheDataOfEachEvent) {
  EventStream events;
  EXPECT_THAT(events.push("data: one\n\ndata:two\n\n"), ElementsAre("one", "two"));
}

TEST(EventStream, DoesNotDependOnWhereTheBytesAreCut) {
  const std::string text = ": comment\r\n\r\nevent: name\r\nid: 7\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\ndata:  two\n\ndata\n\n";
  for (std::size_t size = 1; size <= text.size(); ++size) {
    EventStream events;
    std::vector<std::string> found;
    for (std::size_t begin = 0; begin < text.size(); begin += size) {
      for (std::string& data : events.push(std::string_view(text).substr(begin, size))) found.push_back(std::move(data));
    }
    EXPECT_THAT(found, ElementsAre("{\"a\":\n1}", " two", "")) << size;
  }
}

TEST(EventStream, AnIncompleteEventIsNone) {
  EventStream events;
  EXPECT_THAT(events.push("data: one\n"), ElementsAre());
  EXPECT_THAT(events.push("\n"), ElementsAre("one"));
}

TEST(EventStream, LimitsTheSizeOfAnEvent) {
  EventStream line, lines;
  const std::string large(9 << 20, 'x');
  line.push("data: " + large);
  EXPECT_THROW(line.push(large), DataError);
  lines.push("data: " + large + "\n");
  EXPECT_THROW(lines.push("data: " + large + "\n"), DataError);
}

}  // namespace
}  // namespace nanochat
