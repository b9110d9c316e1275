#include "inference/json_schema.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/errors.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using Json = nlohmann::ordered_json;

bool accepts(ByteAutomaton& automaton, std::string_view text) {
  ByteAutomaton::State state = automaton.start();
  for (const char c : text) {
    state = automaton.next(state, static_cast<unsigned char>(c));
    if (state == ByteAutomaton::kDead) return false;
  }
  return automaton.accepts(state);
}

struct Case {
  const char* schema;
  std::vector<std::string> good, bad;
};

TEST(JsonSchema, WritesWhatFitsAndNothingElse) {
  const std::vector<Case> cases = {
      {R"({"type":"string"})",
       {R"("")", R"("a b")", R"("\n\u00e9\ud83d\ude00")", "\"\xc3\xa9\xf0\x9f\x98\x80\""},
       {"a", R"("a)", R"("\x")", R"("\ud83d")", R"("\udc00")", "\"\xc3\"", "\"\xed\xa0\x80\"", "\"\n\"", "\"\xc0\x80\""}},
      {R"({"type":"string","minLength":2,"maxLength":3})", {R"("ab")", R"("abc")", "\"\xc3\xa9\\n\""}, {R"("a")", R"("abcd")"}},
      {R"({"type":"integer"})", {"0", "-12", "999999999999999"}, {"01", "1.0", "-", "1e3", "1000000000000000"}},
      {R"({"type":"integer","minimum":-12,"maximum":105})",
       {"-12", "-9", "0", "99", "100", "105"},
       {"-13", "106", "1000", "-0"}},
      {R"({"type":"integer","exclusiveMinimum":3,"exclusiveMaximum":5.5})", {"4", "5"}, {"3", "6"}},
      {R"({"type":"number"})", {"0", "-1.5", "2e-3", "1.25E+10"}, {"1.", ".5", "1e", "1e100", "--1", "NaN"}},
      {R"({"type":["boolean","null"]})", {"true", "false", "null"}, {"True", "0", "nul"}},
      {R"({"enum":["a",1,null,{"b":[2]}]})", {R"("a")", "1", "null", R"({"b":[2]})"}, {"2", R"("b")"}},
      {R"({"type":"string","enum":["a",1]})", {R"("a")"}, {"1"}},
      {R"({"type":["string","null"],"enum":["a","ab","b",null,2]})",
       {R"("a")", R"("ab")", R"("b")", "null"},
       {"2", R"("abc")", R"("")"}},
      // As Pydantic writes Literal, and with the annotations that it adds.
      {R"({"const":"x","type":"string","title":"Kind","default":"x","description":"d","examples":["x"]})",
       {R"("x")"},
       {R"("y")", "null"}},
      {R"({"const":7,"type":"integer"})", {"7"}, {"8", "7.0"}},
      {R"({"const":null,"type":"null"})", {"null"}, {"0"}},
      {R"({"const":true,"type":"boolean"})", {"true"}, {"false", "1"}},
      {R"({"const":1.5,"type":["number","null"]})", {"1.5"}, {"null"}},
      {R"({"const":"a","enum":["a","b"]})", {R"("a")"}, {R"("b")"}},
      {R"({"anyOf":[{"const":"x","type":"string"},{"type":"null"}],"default":null})", {R"("x")", "null"}, {R"("y")"}},
      {R"({"const":"\u00e9\n\"","type":"string"})", {"\"\xc3\xa9\\n\\\"\""}, {R"("e")"}},
      {R"({"const":{"x":"y"}})", {R"({"x":"y"})"}, {R"({"x":"z"})", "{}"}},
      {R"({"type":"array","items":{"type":"integer"},"minItems":1,"maxItems":2})",
       {"[1]", "[1,2]", "[ 1,\n 2 ]"},
       {"[]", "[1,2,3]", "[1,]", "[\"a\"]"}},
      {R"({"type":"array","items":{"type":"null"}})", {"[]", "[null,null,null,null]"}, {"[null", "[1]"}},
      {R"({"type":"array","items":{"type":"null"},"maxItems":0})", {"[]"}, {"[null]"}},
      {R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"boolean"},"c":{"type":"null"}},"required":["b"]})",
       {R"({"b":true})", R"({"a":1, "b":false})", R"({ "a": 1,"b": true,"c": null })"},
       {"{}", R"({"a":1})", R"({"b":true,"a":1})", R"({"a":1"b":true})", R"({,"b":true})", R"({"b":true,})",
        R"({"d":1,"b":true})"}},
      {R"({"type":"object","properties":{"a":{"type":"integer"},"ab":{"type":"integer"}}})",
       {"{}", "{ }", R"({"a":1})", R"({"ab":1})", R"({"a":1,"ab":2})"},
       {R"({"abc":1})"}},
      {R"({"type":"object","additionalProperties":{"type":"integer"}})", {"{}", R"({"x":1,"\n":2})"}, {R"({"x":"1"})"}},
      {R"({"type":"object","additionalProperties":false})", {"{}"}, {R"({"a":1})"}},
      {R"({"anyOf":[{"type":"integer"},{"type":"object","properties":{"k":{"const":"v"}},"required":["k"]}]})",
       {"7", R"({"k":"v"})"},
       {"{}", "null"}},
      {R"({"$ref":"#/$defs/node","$defs":{"node":{"type":"object","properties":{"next":{"anyOf":[{"type":"null"},{"$ref":"#/$defs/node"}]}},"required":["next"]}}})",
       {R"({"next":null})", R"({"next":{"next":{"next":null}}})"},
       {"{}", R"({"next":1})"}},
      {R"({"$ref":"#/$defs/a%20b~1c~0","$defs":{"a b/c~":{"type":"null"}}})", {"null"}, {"1"}},
      // Within a schema with an $id "#" is that schema, and what it does not have is looked for around it.
      {R"({"type":"object","properties":{"a":{"$id":"inner","$ref":"#/$defs/x","$defs":{"x":{"const":1}}},"b":{"$id":"other","type":"array","items":{"$ref":"#/$defs/x"}}},
           "required":["a","b"],"$defs":{"x":{"const":2}}})",
       {R"({"a":1,"b":[2]})"},
       {R"({"a":2,"b":[2]})", R"({"a":1,"b":[1]})"}},
      {R"({"allOf":[{"type":"null"}],"title":"t"})", {"null"}, {"1"}},
      // A union that a property tells apart, as Pydantic writes it.
      {R"({"discriminator":{"mapping":{"cat":"#/$defs/Cat","dog":"#/$defs/Dog"},"propertyName":"kind"},"oneOf":[{"$ref":"#/$defs/Cat"},{"$ref":"#/$defs/Dog"}],
           "$defs":{"Cat":{"type":"object","properties":{"kind":{"const":"cat","type":"string"}},"required":["kind"]},
                    "Dog":{"type":"object","properties":{"kind":{"enum":["dog","puppy"]},"good":{"type":"boolean"}},"required":["kind","good"]}}})",
       {R"({"kind":"cat"})", R"({"kind":"puppy","good":true})"},
       {R"({"kind":"cat","good":true})", R"({"kind":"dog"})", "null"}},
      {R"({"oneOf":[{"type":"object","properties":{}},{"type":"null"},{"const":"a"},{"enum":["b",1]}]})",
       {"{}", "null", R"("a")", R"("b")", "1"},
       {R"("c")", "2"}},
      {R"({})", {"1", R"("a")", R"([{"a":[1,{}]}])", "true"}, {"", "tru", "[1", "{1:2}"}},
      {R"(true)", {"1"}, {"x"}},
  };
  for (const Case& one : cases) {
    ByteAutomaton automaton(json_grammar(Json::parse(one.schema)));
    for (const std::string& text : one.good) {
      EXPECT_TRUE(accepts(automaton, text)) << one.schema << " should take " << text;
      EXPECT_TRUE(Json::accept(text)) << text;
    }
    for (const std::string& text : one.bad) EXPECT_FALSE(accepts(automaton, text)) << one.schema << " should not take " << text;
  }
}

TEST(JsonSchema, AnyObject) {
  ByteAutomaton automaton(json_object_grammar());
  for (const char* good : {"{}", R"({"a":{"b":[1,2,{"c":null}]},"d":"e"})"}) EXPECT_TRUE(accepts(automaton, good)) << good;
  for (const char* bad : {"[]", "1", R"({"a"})", "{} "}) EXPECT_FALSE(accepts(automaton, bad)) << bad;
}

TEST(JsonSchema, IntegerRangesHoldExactlyTheirNumbers) {
  for (const auto& [low, high] :
       std::vector<std::pair<int, int>>{{0, 0}, {-5, 5}, {7, 123}, {-120, -8}, {99, 101}, {-1, 1000}}) {
    ByteAutomaton automaton(json_grammar(Json{{"type", "integer"}, {"minimum", low}, {"maximum", high}}));
    for (int value = -1200; value <= 1200; ++value) {
      EXPECT_EQ(accepts(automaton, std::to_string(value)), value >= low && value <= high)
          << value << " in " << low << ".." << high;
    }
  }
}

TEST(JsonSchema, NamesWhatIsNotSupported) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {R"({"type":"string","pattern":"a+"})", "json_schema at /: keyword 'pattern' is not supported"},
      {R"({"type":"object","properties":{"x":{"type":"string","format":"date"}}})", "at /properties/x: keyword 'format'"},
      {R"({"oneOf":[{"type":"object"},{"type":"null"},{"type":"object","properties":{"k":{"const":1}},"required":["k"]}]})",
       "at /oneOf: keyword 'oneOf' is supported for schemas that exclude each other, by their types or by the const or enum of "
       "a property that both require; of 0 and 2"},
      {R"({"oneOf":[{"type":"integer"},{"type":"number"}]})", "keyword 'oneOf'"},
      {R"({"oneOf":[{"enum":["a","b"]},{"const":"b"}]})", "keyword 'oneOf'"},
      {R"({"oneOf":[{"anyOf":[{"type":"string"}]},{"type":"string"}]})", "keyword 'oneOf'"},
      {R"({"oneOf":[{"$ref":"#/$defs/no"},{"type":"null"}]})", "keyword 'oneOf'"},
      {R"({"not":{"type":"null"}})", "keyword 'not'"},
      {R"({"type":"array","uniqueItems":true})", "keyword 'uniqueItems'"},
      {R"({"type":"number","minimum":1})", "keyword 'minimum'"},
      {R"({"type":"integer","multipleOf":2})", "keyword 'multipleOf'"},
      {R"({"allOf":[{"type":"null"},{}]})", "'allOf'"},
      {R"({"type":"text"})", "type is \"text\", expected object"},
      {R"({"type":"string","minLength":3,"maxLength":2})", "maxLength 2 is below minLength 3"},
      {R"({"type":"string","maxLength":99999})", "supported are integers from 0 to 4096"},
      {R"({"type":"integer","minimum":3,"maximum":2})", "no integer is at least 3"},
      {R"({"type":"object","properties":{},"required":["a"]})", "required names \"a\""},
      {R"({"$ref":"#/$defs/x"})", "$ref is \"#/$defs/x\""},
      {R"({"$ref":"#/$defs/~","$defs":{"~":{}}})", "$ref is \"#/$defs/~\""},
      {R"({"$ref":"#/$defs/~2","$defs":{"~2":{}}})", "$ref is \"#/$defs/~2\""},
      {R"({"anyOf":[{"$ref":"#/anyOf/99999999999999999999"}]})", "at /anyOf/0: $ref is \"#/anyOf/99999999999999999999\""},
      {R"({"anyOf":[{"$ref":"#/anyOf/-"}]})", "$ref is \"#/anyOf/-\""},
      {R"({"$ref":"#/title","title":"t"})", "at #/title: found \"t\", expected a schema"},
      {R"({"const":"a","type":"integer"})", "no value of const is what the other keywords ask for"},
      {R"({"const":"a","enum":["b"]})", "no value of const and enum"},
      {R"({"enum":["b"],"type":"null"})", "no value of enum"},
      {R"({"enum":["a"],"anyOf":[{}]})", "beside"},
      {R"({"const":"a","minLength":1})", "keyword 'minLength' beside 'const' is not supported"},
      {R"({"enum":[]})", "enum"},
      {R"([1])", "expected a schema"},
  };
  for (const auto& [schema, message] : cases) {
    EXPECT_THAT([&] { json_grammar(Json::parse(schema)); }, ThrowsMessage<ConfigError>(HasSubstr(message))) << schema;
  }
}

TEST(JsonSchema, FindsThePlacesThatReferencesName) {
  const Json root = Json::parse(R"({"a":[1,{"b/c":2,"~":3,"":4,"\u00e9":5}],"10":6})");
  const auto found = [&](const char* reference) {
    return find_reference(root, reference) == nullptr ? Json() : *find_reference(root, reference);
  };
  EXPECT_EQ(found("#"), root);
  EXPECT_EQ(found("#/a/0"), 1);
  EXPECT_EQ(found("#/a/1/b~1c"), 2);
  EXPECT_EQ(found("#/a/1/~0"), 3);
  EXPECT_EQ(found("#/a/1/"), 4);
  EXPECT_EQ(found("#/a/1/%C3%a9"), 5);
  EXPECT_EQ(found("#/10"), 6);
  for (const char* wrong : {"",
                            "/a",
                            "#a",
                            "#/b",
                            "#/a/2",
                            "#/a/00",
                            "#/a/01",
                            "#/a/+1",
                            "#/a/ 1",
                            "#/a/-1",
                            "#/a/-",
                            "#/a/1x",
                            "#/a/18446744073709551616",
                            "#/a/0/0",
                            "#/a/1/~",
                            "#/a/1/~2",
                            "#/a/1/%7",
                            "#/a/1/%7g",
                            "#/a/1/%",
                            "#/"}) {
    EXPECT_EQ(find_reference(root, wrong), nullptr) << wrong;
  }
}

TEST(JsonSchema, ManyValuesAreATree) {
  Json values = Json::array();
  for (int i = 0; i < 5000; ++i) values.push_back("value " + std::to_string(i * 7));
  ByteAutomaton automaton(json_grammar({{"enum", values}}));
  for (int i = 0; i < 5000; i += 617) EXPECT_TRUE(accepts(automaton, values[static_cast<std::size_t>(i)].dump()));
  for (const char* bad : {R"("value 1")", R"("value ")", R"("value 349930")"}) EXPECT_FALSE(accepts(automaton, bad)) << bad;
  EXPECT_EQ(automaton.endings(automaton.start()).size(), 1u);  // one way to begin, not 5,000
}

TEST(JsonSchema, ASchemaWithoutAFiniteValueHasNoStart) {
  EXPECT_EQ(
      ByteAutomaton(
          json_grammar(Json::parse(
              R"({"$ref":"#/$defs/n","$defs":{"n":{"type":"object","properties":{"n":{"$ref":"#/$defs/n"}},"required":["n"]}}})")))
          .start(),
      ByteAutomaton::kDead);
}

}  // namespace
}  // namespace nanochat
