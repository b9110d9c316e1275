#include "tokenizer/chat_history.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace nanochat {
namespace {

using nlohmann::ordered_json;

TEST(CallText, IsALineOfJson) {
  EXPECT_EQ(call_text({.name = "area", .arguments = R"({"w": 5})"}), R"({"name":"area","arguments":{"w": 5}})");
  EXPECT_EQ(call_text({.name = "now"}), R"({"name":"now","arguments":{}})");
  EXPECT_EQ(call_text({.name = "say \"hi\"", .arguments = "no JSON"}), R"({"name":"say \"hi\"","arguments":"no JSON"})");
  EXPECT_EQ(call_text({.name = "f", .arguments = "[1]"}), R"({"name":"f","arguments":"[1]"})") << "arguments are an object";
}

TEST(DescribeFunctions, KeepsTheOrderOfKeys) {
  EXPECT_EQ(describe_functions({}), "");
  EXPECT_EQ(describe_functions({ordered_json::parse(R"({"name": "w", "description": "d"})"),
                                ordered_json::parse(R"({"name": "v"})")}),
            "These functions can be called, each described by a line of JSON:\n"
            R"({"name":"w","description":"d"})"
            "\n"
            R"({"name":"v"})");
}

TEST(WithCalculations, PutsThemBetweenCharacters) {
  using Parts = std::vector<MessagePart>;
  EXPECT_EQ(with_calculations("\xc3\xa9=5.", {{"2+3", "5", 2}, {"6*7", "42", 4}}), (Parts{{PartType::kText, "\xc3\xa9="},
                                                                                          {PartType::kPython, "2+3"},
                                                                                          {PartType::kPythonOutput, "5"},
                                                                                          {PartType::kText, "5."},
                                                                                          {PartType::kPython, "6*7"},
                                                                                          {PartType::kPythonOutput, "42"}}));
  EXPECT_EQ(with_calculations("", {{"1", "1", 0}}), (Parts{{PartType::kPython, "1"}, {PartType::kPythonOutput, "1"}}));
  EXPECT_EQ(with_calculations("a", {}), (Parts{{PartType::kText, "a"}}));
  const Message message("assistant", with_calculations("\xc3\xa9=5.", {{"2+3", "5", 2}, {"6*7", "42", 4}}));
  EXPECT_EQ(message.joined_text(), "\xc3\xa9=5.");
  const std::vector<Calculation> back = calculations_of(message.parts);
  ASSERT_EQ(back.size(), 2u);
  EXPECT_EQ(back[0].offset, 2);
  EXPECT_EQ(back[1].expression + "=" + back[1].result, "6*7=42");
  EXPECT_EQ(back[1].offset, 4);
  EXPECT_TRUE(calculations_of({{PartType::kText, "a"}, {PartType::kPython, "1/0"}, {PartType::kText, "b"}}).empty());
  EXPECT_EQ(with_calculations("", {}), (Parts{{PartType::kText, ""}}));
}

TEST(ChatHistory, RendersCallsAndResultsAsTurns) {
  ChatHistory history;
  history.add_system("S");
  history.add_user("weather?");
  history.add_assistant({{PartType::kText, "Let me see."}}, {{.name = "w", .arguments = R"({"city":"Paris"})", .id = "c1"}});
  history.add_result({.id = "c1"}, "sunny");
  history.add_assistant({{PartType::kText, "It is sunny."}});
  history.add_system("D");
  const Conversation conversation = std::move(history).take("functions");
  EXPECT_EQ(conversation, (Conversation{{{"system", "S\n\nD\n\nfunctions"},
                                         {"user", "weather?"},
                                         {"assistant",
                                          "Let me see.\n\n"
                                          R"({"name":"w","arguments":{"city":"Paris"}})"},
                                         {"user", "Result of w:\nsunny"},
                                         {"assistant", "It is sunny."}}}));
}

TEST(ChatHistory, NamesResultsByIdByOrderOrNotAtAll) {
  ChatHistory history;
  history.add_user("q");
  history.add_assistant({}, {{.name = "f", .id = "1"}, {.name = "g", .id = "2"}, {.name = "h"}});
  history.add_result({.id = "2"}, "of g");
  history.add_result({}, "of f");
  history.add_result({.name = "other"}, "named");
  history.add_result({}, "one too many");
  history.add_result({.id = "unknown"}, "of an unknown id");
  history.add_assistant({{PartType::kText, "a"}});
  history.add_result({.id = "1"}, "late");
  history.add_result({}, "of nothing");
  const Conversation conversation = std::move(history).take();
  ASSERT_EQ(conversation.messages.size(), 5U);
  EXPECT_EQ(conversation.messages[1].joined_text(), R"({"name":"f","arguments":{}})"
                                                    "\n"
                                                    R"({"name":"g","arguments":{}})"
                                                    "\n"
                                                    R"({"name":"h","arguments":{}})");
  EXPECT_EQ(conversation.messages[2].joined_text(),
            "Result of g:\nof g\n\nResult of f:\nof f\n\nResult of other:\nnamed\n\nResult:\none too many\n\n"
            "Result of unknown:\nof an unknown id");
  EXPECT_EQ(conversation.messages[4].joined_text(), "Result of f:\nlate\n\nResult:\nof nothing");
}

TEST(ChatHistory, JoinsNeighboursAndKeepsParts) {
  ChatHistory history;
  history.add_user("a");
  history.add_user("");
  history.add_user("b", /*learned=*/false);
  history.add_assistant({{PartType::kPython, "1+1"}, {PartType::kPythonOutput, "2"}});
  history.add_assistant({{PartType::kText, "two"}});
  const Conversation conversation = std::move(history).take();
  ASSERT_EQ(conversation.messages.size(), 2U);
  EXPECT_EQ(conversation.messages[0].joined_text(), "a\n\nb");
  EXPECT_FALSE(conversation.messages[0].learned);
  EXPECT_EQ(conversation.messages[1],
            Message("assistant", {{PartType::kPython, "1+1"}, {PartType::kPythonOutput, "2"}, {PartType::kText, "\n\ntwo"}}));
  EXPECT_TRUE(std::move(ChatHistory()).take().messages.empty());
}

}  // namespace
}  // namespace nanochat
