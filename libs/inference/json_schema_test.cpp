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

void check(const std::vector<Case>& cases) {
  for (const Case& one : cases) {
    ByteAutomaton automaton(json_grammar(Json::parse(one.schema)));
    if (automaton.start() == ByteAutomaton::kDead) {
      ADD_FAILURE() << one.schema << " has no text";
      continue;
    }
    for (const std::string& text : one.good) {
      EXPECT_TRUE(accepts(automaton, text)) << one.schema << " should take " << text;
      EXPECT_TRUE(Json::accept(text)) << text;
    }
    for (const std::string& text : one.bad) EXPECT_FALSE(accepts(automaton, text)) << one.schema << " should not take " << text;
  }
}

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
  check(cases);
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

// Schemas for which a value is easily too much: for each, texts that the answers may be, and texts that they may not.
TEST(JsonSchema, TextsByPatternAndFormat) {
  check({
      {R"({"type":"string","pattern":"^a+$"})", {R"("a")", R"("aaa")"}, {R"("")", R"("ab")", "a", R"("\u0061")"}},
      {R"({"type":"string","pattern":"b"})", {R"("b")", R"("abc")", R"("b\n")", R"("\"b")"}, {R"("ac")", R"("b)"}},
      {R"({"pattern":"^[\"\\\\\\n]$"})", {R"("\"")", R"("\\")", R"("\n")"}, {R"("a")", "3"}},
      {R"({"type":"string","pattern":"^.$"})",
       {R"("a")", "\"\xc3\xa9\"", "\"\xf0\x9f\x98\x80\""},
       {"\"\xc3\"", R"("ab")", R"("\n")"}},
      {R"({"type":"string","pattern":"^\\w+$","minLength":2,"maxLength":3})", {R"("ab")", R"("a_1")"}, {R"("a")", R"("abcd")"}},
      {R"({"type":"string","format":"date"})",
       {R"("2024-02-29")", R"("1999-12-31")"},
       {R"("2023-02-29")", R"("2024-04-31")", R"("2024-13-01")", R"("1900-02-29")"}},
      {R"({"type":"string","format":"time"})",
       {R"("23:59:59Z")", R"("00:00:00.5+01:30")"},
       {R"("24:00:00Z")", R"("12:00:00")"}},
      {R"({"type":"string","format":"date-time"})", {R"("2024-02-29T23:59:59Z")"}, {R"("2024-02-29 23:59:59Z")"}},
      {R"({"type":"string","format":"duration"})",
       {R"("P1Y2M3DT4H5M6S")", R"("PT5M")", R"("P3W")"},
       {R"("P")", R"("P1Y3D")", R"("PT")"}},
      {R"({"type":"string","format":"email"})",
       {R"("a.b+c@example.com")"},
       {R"("a@b")", R"("@example.com")", R"("a..b@example.com")"}},
      {R"({"type":"string","format":"hostname"})", {R"("a-b.example")"}, {R"("-a")", R"("a-")", R"("a--b")"}},
      {R"({"type":"string","format":"ipv4"})",
       {R"("127.0.0.1")", R"("255.249.99.0")"},
       {R"("256.0.0.1")", R"("01.0.0.1")", R"("1.2.3")"}},
      {R"({"type":"string","format":"ipv6"})",
       {R"("::")", R"("::1")", R"("1::")", R"("fe80::1:2")", R"("1:2:3:4:5:6:7:8")"},
       {R"("1:2:3")", R"("1::2::3")", R"("1:2:3:4:5:6:7::8")"}},
      {R"({"type":"string","format":"uuid"})", {R"("123e4567-e89b-12d3-a456-426614174000")"}, {R"("123e4567")"}},
      {R"({"type":"string","format":"uri"})",
       {R"("https://example.com/a%20b?c=d#e")"},
       {R"("example.com")", R"("http://a b.com")"}},
      {R"({"type":"string","format":"password"})", {R"("x")", R"("")"}, {"1"}},
  });
}

TEST(JsonSchema, NumbersWithBoundsAndMultiples) {
  check({
      {R"({"type":"number","minimum":-1.5,"maximum":2})",
       {"-1.5", "-1.25", "-1", "0", "0.5", "1.99999999999999", "2", "2.0", "0.0"},
       {"-1.6", "2.1", "3", "-2", "1e1", "-1.50000000000001", "2.00000000000001"}},
      {R"({"type":"number","exclusiveMinimum":0,"exclusiveMaximum":1})",
       {"0.5", "0.00000000000001", "0.99999999999999"},
       {"0", "1", "0.0", "1.0", "-0.5"}},
      {R"({"type":"number","minimum":100.25})",
       {"100.25", "100.3", "101", "5000.5", "999999999999999"},
       {"100.2", "100", "99", "-200"}},
      {R"({"type":"number","maximum":-0.001})", {"-0.001", "-1", "-999999999999999", "-0.01"}, {"0", "-0.0001", "1", "-0"}},
      {R"({"type":"integer","minimum":1.5,"maximum":3.5})", {"2", "3"}, {"1", "4", "2.5"}},
      {R"({"type":"integer","multipleOf":5})", {"0", "5", "-10", "123455"}, {"1", "7", "-11", "05"}},
      {R"({"type":"integer","multipleOf":1000,"minimum":1})", {"1000", "25000"}, {"0", "100", "1500", "-1000"}},
      {R"({"type":"integer","multipleOf":7,"minimum":10,"maximum":30})", {"14", "21", "28"}, {"7", "35", "15", "0"}},
      {R"({"type":"integer","multipleOf":12345,"minimum":0,"maximum":100000})", {"0", "12345", "98760"}, {"1", "111105"}},
      {R"({"type":"number","multipleOf":0.25})", {"0.25", "1.5", "-2", "3.75", "0"}, {"0.3", "1.26", "0.125"}},
      {R"({"type":"number","multipleOf":0.01,"minimum":0,"maximum":10})",
       {"0.01", "9.99", "10", "3.5", "7"},
       {"10.01", "0.001", "-0.01"}},
      {R"({"allOf":[{"multipleOf":4},{"multipleOf":6}],"type":"integer"})", {"12", "0", "-24"}, {"4", "6", "8"}},
      {R"({"type":"integer","multipleOf":1.5})", {"3", "0", "-6"}, {"1", "2", "1.5"}},
  });
}

TEST(JsonSchema, ListsOfSeveralKinds) {
  check({
      {R"({"type":"array","prefixItems":[{"type":"integer"},{"type":"string"}],"minItems":2,"maxItems":2})",
       {R"([1,"a"])", R"([ 1, "" ])"},
       {"[1]", "[1,2]", R"([1,"a",2])"}},
      {R"({"prefixItems":[{"type":"integer"}],"items":{"type":"null"}})", {"[]", "[1]", "[1,null,null]"}, {"[null]", "[1,2]"}},
      {R"({"type":"array","items":[{"type":"integer"},{"type":"null"}],"additionalItems":false})",
       {"[1,null]", "[1]"},
       {"[1,null,1]", "[null]"}},
      {R"({"type":"array","items":{"enum":["a","b","c"]},"uniqueItems":true})",
       {"[]", R"(["b","a"])", R"(["c","a","b"])"},
       {R"(["a","a"])", R"(["a","b","a"])"}},
      {R"({"type":"array","items":{"type":"boolean"},"uniqueItems":true,"minItems":2})",
       {"[true,false]", "[false, true]"},
       {"[true]", "[true,true]"}},
      {R"({"type":"array","items":{"enum":[1,2,3,4,5,6,7,8,9,10]},"uniqueItems":true,"maxItems":3})",
       {"[1,5,10]", "[]"},
       {"[1,1]", "[1,2,3,4]"}},
      {R"({"type":"array","contains":{"const":1},"items":{"type":"integer"}})", {"[1]", "[1,2,3]"}, {"[]", "[2]"}},
      {R"({"type":"array","contains":{"const":1},"items":{"enum":[1,2]},"maxContains":1})",
       {"[1]", "[1,2,2]"},
       {"[1,1]", "[2]"}},
      {R"({"type":"array","unevaluatedItems":false,"prefixItems":[{"type":"null"}]})", {"[]", "[null]"}, {"[null,null]"}},
  });
}

TEST(JsonSchema, ObjectsWithFurtherProperties) {
  check({
      {R"({"type":"object","properties":{"a":{"type":"integer"}},"additionalProperties":{"type":"null"},"required":["a"]})",
       {R"({"a":1})", R"({"a":1,"b":null,"c":null})"},
       {R"({"a":1,"b":2})", R"({"a":1,"a":null})", R"({"a":1,"\u0061":null})", R"({"b":null})"}},
      {R"({"type":"object","patternProperties":{"^x_":{"type":"integer"}},"additionalProperties":false})",
       {"{}", R"({"x_":1,"x_a":2})"},
       {R"({"y":1})", R"({"x_":null})"}},
      {R"({"type":"object","patternProperties":{"^x":{"type":"integer"},"z$":{"minimum":5,"type":"integer"}},"additionalProperties":{"type":"null"}})",
       {R"({"x":1,"z":5,"xz":7,"a":null})"},
       {R"({"xz":1})", R"({"z":1})", R"({"a":1})"}},
      {R"({"type":"object","propertyNames":{"pattern":"^[a-c]+$"},"additionalProperties":{"type":"null"}})",
       {"{}", R"({"abc":null})"},
       {R"({"d":null})"}},
      {R"({"type":"object","propertyNames":{"enum":["k"]},"additionalProperties":{"type":"integer"}})",
       {R"({"k":1})"},
       {R"({"l":1})"}},
      {R"({"type":"object","minProperties":1,"additionalProperties":{"type":"null"}})", {R"({"a":null})"}, {"{}"}},
      {R"({"type":"object","minProperties":2,"maxProperties":2,"additionalProperties":{"type":"null"}})",
       {R"({"b":null,"a":null})"},
       {"{}", R"({"a":null})", R"({"a":null,"a":null})", R"({"b":null,"a":null,"c":null})"}},
      {R"({"type":"object","properties":{"a":{"const":1},"b":{"const":2},"c":{"const":3}},"maxProperties":1})",
       {"{}", R"({"b":2})"},
       {R"({"a":1,"b":2})"}},
      {R"({"type":"object","required":["n"]})", {R"({"n":[1]})"}, {"{}"}},
      {R"({"type":"object","properties":{"a":{"const":1},"b":{"const":2}},"dependentRequired":{"a":["b"]}})",
       {R"({"a":1,"b":2})", R"({"b":2})", "{}"},
       {R"({"a":1})"}},
      {R"({"allOf":[{"type":"object","properties":{"a":{"const":1}},"required":["a"]},{"properties":{"b":{"const":2}},"required":["b"]}],"unevaluatedProperties":false})",
       {R"({"a":1,"b":2})"},
       {R"({"a":1})", R"({"a":1,"b":2,"c":3})"}},
  });
}

TEST(JsonSchema, SchemasInsideSchemas) {
  check({
      {R"({"type":"string","anyOf":[{"enum":["a","b"]},{"pattern":"^x+$"}]})", {R"("a")", R"("xx")"}, {R"("c")", "1"}},
      {R"({"type":"object","properties":{"k":{"type":"string"}},"anyOf":[{"required":["k"]},{"required":["l"]}]})",
       {R"({"k":"v"})", R"({"k":"v","l":1})", R"({"l":1})"},
       {"{}"}},
      {R"({"allOf":[{"type":"integer","minimum":3},{"maximum":5}]})", {"3", "5"}, {"2", "6"}},
      {R"({"type":"string","nullable":true})", {"null", R"("a")"}, {"1"}},
      {R"({"type":"string","nullable":false})", {R"("a")"}, {"null"}},
      {R"({"oneOf":[{"type":"integer","minimum":0},{"type":"integer","maximum":10}]})", {"-1", "11"}, {"0", "5", "10"}},
      {R"({"oneOf":[{"enum":["a","b"]},{"const":"b"}]})", {R"("a")"}, {R"("b")"}},
      {R"({"oneOf":[{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]},{"type":"object","properties":{"b":{"type":"integer"}},"required":["b"]}]})",
       {R"({"a":1})", R"({"b":1})"},
       {R"({"a":1,"b":1})", "{}"}},
      {R"({"not":{"type":"string"},"type":["string","null"]})", {"null"}, {R"("a")"}},
      {R"({"type":"string","not":{"enum":["a","b"]}})", {R"("c")", R"("ab")", R"("")"}, {R"("a")", R"("b")"}},
      {R"({"type":"string","not":{"pattern":"^a"}})", {R"("b")", R"("")"}, {R"("a")", R"("ab")"}},
      {R"({"type":"integer","not":{"const":5}})", {"4", "6", "55"}, {"5"}},
      {R"({"type":"object","properties":{"kind":{"enum":["x","y"]},"n":{"type":"integer"}},"required":["kind"],"if":{"properties":{"kind":{"const":"x"}}},"then":{"required":["n"]}})",
       {R"({"kind":"x","n":1})", R"({"kind":"y"})"},
       {R"({"kind":"x"})"}},
      {R"({"const":"abc","minLength":3})", {R"("abc")"}, {R"("ab")"}},
      {R"({"enum":["a","abc",3,7],"minLength":2,"minimum":5})", {R"("abc")", "7"}, {R"("a")", "3"}},
      {R"({"$ref":"#/$defs/a","minimum":5,"$defs":{"a":{"type":"integer","maximum":6}}})", {"5", "6"}, {"4", "7"}},
      {R"({"$ref":"#there","$defs":{"x":{"$anchor":"there","const":1}}})", {"1"}, {"2"}},
      {R"({"$id":"http://a.test/root.json","$ref":"item.json#/$defs/n","$defs":{"i":{"$id":"item.json","$defs":{"n":{"const":4}}}}})",
       {"4"},
       {"5"}},
      {R"({"contains":false})", {"1", "{}", R"("a")"}, {"[1]", "[]"}},  // values of the keyword's type do not match
      {R"({"minLength":2})", {R"("ab")"}, {R"("a")", "1"}},
      {R"({"anyOf":[{"$ref":"#"},{"type":"null"}]})", {"null"}, {"1"}},
      {R"({"type":"null","x-order":1,"x-internal":{"a":[]}})", {"null"}, {"1"}},
  });
}

TEST(JsonSchema, NamesWhatIsNotSupported) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {R"({"type":"string","format":"color"})",
       "schema at /: keyword 'format' with \"color\" is not supported; supported are base64"},
      {R"({"type":"object","properties":{"x":{"type":"string","pattern":"(a)\\1"}}})",
       "at /properties/x: keyword 'pattern' with \"(a)\\\\1\": regular expression, byte 5: back-references"},
      {R"({"type":"string","contentMediaType":"application/json"})", "keyword 'contentMediaType'"},
      {R"({"type":"array","uniqueItems":true})", "keyword 'uniqueItems' is supported for items with few values"},
      {R"({"type":"array","items":{"type":"string"},"uniqueItems":true})", "keyword 'uniqueItems'"},
      {R"({"type":"string","not":{"format":"date"}})", "keyword 'format' is not supported where it must not match"},
      {R"({"oneOf":[{"type":"integer"},{"type":"number"}]})",
       "keyword 'type' is not supported where numbers must not be integers"},
      {R"({"anyOf":[{"type":"string"}],"nullable":true})", "keyword 'nullable' is supported beside 'type' only"},
      {R"({"type":"integer","multipleOf":1234567})", "keyword 'multipleOf' is supported"},
      {R"({"type":"integer","multipleOf":0})", "multipleOf is 0, expected a number above 0"},
      {R"({"frobnicate":1})", "keyword 'frobnicate' is not supported"},
      {R"({"not":{"frobnicate":1}})", "at /not: keyword 'frobnicate' is not supported"},
      {R"({"type":"text"})", "type is \"text\", expected object"},
      {R"({"type":"string","minLength":3,"maxLength":2})", "maxLength 2 is below minLength 3"},
      {R"({"type":"string","minLength":99999})", "supported are integers from 0 to 4096"},
      {R"({"type":"integer","minimum":"3"})", "minimum is \"3\", expected a number"},
      {R"({"type":"object","required":[1]})", "required names 1, expected a string"},
      {R"({"$ref":"#/$defs/x"})", "$ref is \"#/$defs/x\""},
      {R"({"$ref":"http://other.test/schema"})", "$ref is \"http://other.test/schema\""},
      {R"({"$ref":"#/$defs/~","$defs":{"~":{}}})", "$ref is \"#/$defs/~\""},
      {R"({"$ref":"#/$defs/~2","$defs":{"~2":{}}})", "$ref is \"#/$defs/~2\""},
      {R"({"anyOf":[{"$ref":"#/anyOf/99999999999999999999"}]})", "at /anyOf/0: $ref is \"#/anyOf/99999999999999999999\""},
      {R"({"anyOf":[{"$ref":"#/anyOf/-"}]})", "$ref is \"#/anyOf/-\""},
      {R"({"$ref":"#/title","title":"t"})", "at /title: found \"t\", expected a schema"},
      {R"({"enum":[]})", "enum"},
      {R"([1])", "expected a schema"},
  };
  for (const auto& [schema, message] : cases) {
    EXPECT_THAT([&] { json_grammar(Json::parse(schema)); }, ThrowsMessage<ConfigError>(HasSubstr(message))) << schema;
  }
}

// Alternatives multiply: a schema with too many of them is an error and not a wait.
TEST(JsonSchema, LimitsAlternatives) {
  Json all = Json::array();
  for (int i = 0; i < 12; ++i)
    all.push_back(Json{{"anyOf", {Json{{"minimum", i}}, Json{{"minimum", -i}}, Json{{"maximum", i}}}}});
  EXPECT_THAT(
      [&] {
        json_grammar(Json{{"type", "integer"}, {"allOf", all}});
      },
      ThrowsMessage<ConfigError>(HasSubstr("more than 2000 alternatives")));
}

TEST(JsonSchema, LimitsTheWorkForPatterns) {
  Json all = Json::array({Json{{"pattern", "^(a|b)*a(a|b){11}$"}}});  // 4,096 states
  for (int i = 0; i < 150; ++i) all.push_back(Json{{"pattern", "^[ab]{0," + std::to_string(i) + "}"}});  // any text
  EXPECT_THAT(
      [&] {
        json_grammar(Json{{"type", "string"}, {"allOf", all}});
      },
      ThrowsMessage<ConfigError>(HasSubstr("expected fewer patterns")));
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
