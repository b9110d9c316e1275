#include "core/options.h"

#include <stdlib.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <rapidcheck.h>

#include "core/errors.h"
#include "core/testing.h"

namespace nanochat {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Config {
  bool compile = true;
  int depth = 4;
  std::int64_t tokens = -1;
  std::uint64_t seed = 42;
  double lr = 0.02;
  std::string dtype = "auto";
  std::filesystem::path output_dir = "runs/base";
  std::vector<std::string> data_dir = {"a", "b"};
  std::vector<std::string> benchmarks;
};

class OptionsTest : public ::testing::Test {
 protected:
  OptionsTest() {
    options_.add("compile", &config_.compile, "whether");
    options_.add("depth", config_.depth, "layers").at_least(1).at_most(64);
    options_.add("tokens", &config_.tokens, "horizon");
    options_.add("seed", &config_.seed, "seed");
    options_.add("lr", &config_.lr, "learning rate").at_least(0);
    options_.add("dtype", &config_.dtype, "type").one_of({"auto", "float32", "bfloat16"});
    options_.add("output_dir", &config_.output_dir, "where");
    options_.add("data_dir", &config_.data_dir, "what").not_in_resolved();
    options_.add("benchmarks", &config_.benchmarks, "which").one_of({"core", "arc"}).comma_separated();
  }
  Option& option(const std::string& name) { return *options_.find(name); }
  void set(const std::string& name, const std::vector<std::string>& values) {
    option(name).set_text(values, option(name).flag(), "flag");
  }
  template <class Function>
  static std::string error_of(Function&& function) {
    try {
      function();
    } catch (const ConfigError& error) {
      EXPECT_EQ(error.code(), ExitCode::kUsage);
      return error.what();
    }
    return "nothing was thrown";
  }
  std::string error_of_text(const std::string& name, const std::vector<std::string>& values) {
    return error_of([&] { set(name, values); });
  }
  std::string error_of_json(const json& object) {
    return error_of([&] { options_.apply_json(object, "c.json"); });
  }

  Config config_;
  OptionList options_;
};

TEST_F(OptionsTest, OneNameGivesFlagVariableTypeAndDefault) {
  Option& option = *options_.find("output_dir");
  EXPECT_EQ(option.flag(), "--output-dir");
  EXPECT_EQ(option.environment(), "NANOCHAT_OUTPUT_DIR");
  EXPECT_EQ(option.help(), "where");
  EXPECT_EQ(options_.find("output-dir"), nullptr);
  std::vector<std::string> types, defaults;
  for (const Option& each : std::as_const(options_).all()) {
    types.push_back(each.type_name());
    defaults.push_back(each.default_text());
  }
  EXPECT_THAT(types, ElementsAre("", "INT", "INT", "INT", "FLOAT", "TEXT", "PATH", "TEXT...", "TEXT..."));
  EXPECT_THAT(defaults, ElementsAre("true", "4", "-1", "42", "0.02", "auto", "runs/base", "a,b", ""));
  EXPECT_TRUE(options_.find("compile")->is_flag());
  EXPECT_TRUE(options_.find("data_dir")->is_list());
  EXPECT_TRUE(options_.find("benchmarks")->is_comma_separated());
  EXPECT_THAT(options_.find("dtype")->choices(), ElementsAre("auto", "float32", "bfloat16"));
}

TEST_F(OptionsTest, TextOfEveryType) {
  set("compile", {"false"});
  set("depth", {"12"});
  set("tokens", {"1e6"});
  set("seed", {"18446744073709551615"});
  set("lr", {"3e-4"});
  set("dtype", {"float32"});
  set("output_dir", {"runs/x y"});
  set("data_dir", {"one,file", "two"});
  set("benchmarks", {"core,arc", "[\"arc\"]"});
  EXPECT_FALSE(config_.compile);
  EXPECT_EQ(config_.depth, 12);
  EXPECT_EQ(config_.tokens, 1000000);
  EXPECT_EQ(config_.seed, std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(config_.lr, 3e-4);
  EXPECT_EQ(config_.dtype, "float32");
  EXPECT_EQ(config_.output_dir, "runs/x y");
  EXPECT_THAT(config_.data_dir, ElementsAre("one,file", "two"));
  EXPECT_THAT(config_.benchmarks, ElementsAre("core", "arc", "arc"));
  EXPECT_EQ(option("depth").source(), "flag");
  set("lr", {"2"});  // an integer is a number too
  EXPECT_EQ(config_.lr, 2.0);
  set("dtype", {"auto"});
  set("tokens", {"+7"});
  EXPECT_EQ(config_.tokens, 7);
  set("compile", {"on"});
  EXPECT_TRUE(config_.compile);
}

TEST_F(OptionsTest, WrongTextSaysWhatWasFoundAndExpectedAndChangesNothing) {
  EXPECT_EQ(error_of_text("depth", {"many"}), "--depth: found \"many\", expected an integer from -2147483648 to 2147483647");
  EXPECT_THAT(error_of_text("depth", {"1.5"}), HasSubstr("found 1.5, expected an integer"));
  EXPECT_THAT(error_of_text("depth", {"3000000000"}), HasSubstr("found 3000000000, expected an integer from"));
  EXPECT_THAT(error_of_text("tokens", {"9223372036854775808"}), HasSubstr("expected an integer from"));
  EXPECT_THAT(error_of_text("tokens", {"1e300"}), HasSubstr("expected an integer from"));
  EXPECT_THAT(error_of_text("seed", {"-1"}), HasSubstr("found -1, expected an integer from 0 to"));
  EXPECT_THAT(error_of_text("depth", {"12x"}), HasSubstr("found \"12x\""));
  EXPECT_THAT(error_of_text("lr", {"nan"}), HasSubstr("expected a number"));
  EXPECT_THAT(error_of_text("lr", {""}), HasSubstr("expected a number"));
  EXPECT_EQ(error_of_text("depth", {"0"}), "--depth: found 0, expected a number of at least 1");
  EXPECT_EQ(error_of_text("depth", {"65"}), "--depth: found 65, expected a number of at most 64");
  EXPECT_EQ(error_of_text("dtype", {"bf16"}), "--dtype: found \"bf16\", expected one of auto, float32, bfloat16");
  EXPECT_EQ(error_of_text("benchmarks", {"core,mmlu"}), "--benchmarks: found \"mmlu\", expected one of core, arc");
  EXPECT_THAT(error_of_text("benchmarks", {"[1]"}), HasSubstr("expected a JSON array of strings, or items separated"));
  EXPECT_THAT(error_of_text("compile", {"maybe"}), HasSubstr("expected true or false"));
  EXPECT_EQ(error_of_text("depth", {"1", "2"}), "--depth: found 2 values, expected one value");
  EXPECT_EQ(config_.depth, 4);
  EXPECT_EQ(config_.dtype, "auto");
  EXPECT_TRUE(config_.benchmarks.empty());
  EXPECT_EQ(option("depth").source(), "default");
}

TEST_F(OptionsTest, AnOptionsOwnCheckRefusesBeforeTheFieldChanges) {
  options_.add("width", &config_.tokens, "width").check([](const json& value) {
    return value.get<int>() % 64 == 0 ? std::string() : std::string("a multiple of 64");
  });
  EXPECT_EQ(error_of_text("width", {"65"}), "--width: found 65, expected a multiple of 64");
  set("width", {"128"});
  EXPECT_EQ(config_.tokens, 128);
}

TEST_F(OptionsTest, AboveTakesOneOtherValue) {
  option("tokens").above(0, -1);
  for (const char* right : {"1", "7", "-1"}) set("tokens", {right});
  EXPECT_EQ(error_of_text("tokens", {"0"}), "--tokens: found 0, expected a number above 0, or -1");
  EXPECT_EQ(error_of_text("tokens", {"-3"}), "--tokens: found -3, expected a number above 0, or -1");
  EXPECT_EQ(config_.tokens, -1);
}

TEST_F(OptionsTest, AWordStandsForANumber) {
  option("tokens").at_least(1).or_word("auto", -1);
  EXPECT_EQ(option("tokens").type_name(), "INT|auto");
  set("tokens", {"7"});
  EXPECT_EQ(option("tokens").value(), 7);
  set("tokens", {"auto"});
  EXPECT_EQ(config_.tokens, -1);
  EXPECT_EQ(option("tokens").source(), "flag");
  EXPECT_EQ(options_.resolved().at("tokens"), "auto");
  config_.tokens = 3;
  options_.apply_json({{"tokens", "auto"}}, "c.json");
  EXPECT_EQ(config_.tokens, -1);
  EXPECT_EQ(error_of_text("tokens", {"most"}), "--tokens: found \"most\", expected an integer, or auto");
  EXPECT_THAT(error_of_text("tokens", {"-1"}), HasSubstr("at least 1")) << "the number itself is not offered";
}

TEST_F(OptionsTest, JsonOfEveryType) {
  options_.apply_json(json::parse(R"({"compile": false, "depth": 6, "tokens": -5, "seed": 7, "lr": 1,
                                      "dtype": "bfloat16", "output_dir": "x", "data_dir": ["p", "q"],
                                      "benchmarks": "core"})"),
                      "c.json");
  EXPECT_FALSE(config_.compile);
  EXPECT_EQ(config_.depth, 6);
  EXPECT_EQ(config_.tokens, -5);
  EXPECT_EQ(config_.seed, 7u);
  EXPECT_EQ(config_.lr, 1.0);
  EXPECT_EQ(config_.dtype, "bfloat16");
  EXPECT_EQ(config_.output_dir, "x");
  EXPECT_THAT(config_.data_dir, ElementsAre("p", "q"));
  EXPECT_THAT(config_.benchmarks, ElementsAre("core"));
  EXPECT_EQ(option("depth").source(), "c.json");
}

TEST_F(OptionsTest, RefusesJsonOfUnknownKeysAndOtherTypes) {
  EXPECT_EQ(error_of_json({{"depht", 3}}), "c.json: unknown key \"depht\", did you mean \"depth\"?");
  EXPECT_EQ(error_of_json({{"zzzzzzzzzz", 3}}), "c.json: unknown key \"zzzzzzzzzz\"; --help lists the options");
  EXPECT_EQ(error_of_json({{"depth", "4"}}),
            "c.json: \"depth\": found \"4\", expected an integer from -2147483648 to 2147483647");
  EXPECT_THAT(error_of_json({{"depth", 4.5}}), HasSubstr("found 4.5, expected an integer"));
  EXPECT_THAT(error_of_json({{"depth", nullptr}}), HasSubstr("found null"));
  EXPECT_EQ(error_of_json({{"compile", 1}}), "c.json: \"compile\": found 1, expected true or false");
  EXPECT_EQ(error_of_json({{"lr", "fast"}}), "c.json: \"lr\": found \"fast\", expected a number");
  EXPECT_EQ(error_of_json({{"output_dir", 3}}), "c.json: \"output_dir\": found 3, expected a string");
  EXPECT_EQ(error_of_json({{"data_dir", 3}}), "c.json: \"data_dir\": found 3, expected an array of strings");
  EXPECT_THAT(error_of_json({{"data_dir", {"a", 3}}}), HasSubstr("found 3 in the array, expected strings only"));
  EXPECT_EQ(error_of_json(json::array({1})), "c.json: found [1], expected a JSON object of options");
  EXPECT_THAT(error_of_json({{"depth", std::string(500, 'x')}}), HasSubstr("xxx..., expected an integer"));
}

TEST_F(OptionsTest, FilesMayHoldComments) {
  const testing::TemporaryDirectory folder;
  testing::write_text(folder / "c.json", "{\n  // deeper\n  \"depth\": 8\n}\n");
  options_.apply_file(folder / "c.json");
  EXPECT_EQ(config_.depth, 8);
  EXPECT_EQ(option("depth").source(), (folder / "c.json").string());
}

TEST_F(OptionsTest, BrokenFilesAreErrorsOfConfigurationWithTheLine) {
  const testing::TemporaryDirectory folder;
  testing::write_text(folder / "c.json", "{\n  \"depth\": 8,\n  \"lr\" 3\n}\n");
  EXPECT_EQ(error_of([&] { options_.apply_file(folder / "c.json"); }),
            (folder / "c.json").string() + ":3:8: not valid JSON here");
  testing::write_text(folder / "empty.json", "");
  EXPECT_THAT(error_of([&] { options_.apply_file(folder / "empty.json"); }), HasSubstr("empty.json:1:1: not valid"));
  EXPECT_THAT(error_of([&] { options_.apply_file(folder / "absent"); }), HasSubstr("no such file"));
  EXPECT_EQ(config_.depth, 4);
}

class Environment {
 public:
  Environment(const char* name, const char* value) : name_(name) { ::setenv(name, value, 1); }
  ~Environment() { ::unsetenv(name_); }

 private:
  const char* name_;
};

TEST_F(OptionsTest, VariablesOfTheEnvironmentSetOptions) {
  const Environment depth("NANOCHAT_DEPTH", "9"), data("NANOCHAT_DATA_DIR", "x,y"),
      benchmarks("NANOCHAT_BENCHMARKS", "[\"core\",\"arc\"]"), empty("NANOCHAT_DTYPE", ""),
      unknown("NANOCHAT_UNKNOWN_THING", "1");
  options_.apply_environment();
  EXPECT_EQ(config_.depth, 9);
  EXPECT_THAT(config_.data_dir, ElementsAre("x", "y"));
  EXPECT_THAT(config_.benchmarks, ElementsAre("core", "arc"));
  EXPECT_EQ(config_.dtype, "auto");
  EXPECT_EQ(option("depth").source(), "environment");
  {
    const Environment wrong("NANOCHAT_DEPTH", "nine");
    EXPECT_THAT(error_of([&] { options_.apply_environment(); }), ::testing::StartsWith("NANOCHAT_DEPTH: found"));
  }
}

TEST_F(OptionsTest, SpacesAroundCommasBelongToNoItem) {
  const Environment benchmarks("NANOCHAT_BENCHMARKS", " core, arc\t,, ");
  options_.apply_environment();
  EXPECT_THAT(config_.benchmarks, ElementsAre("core", "arc"));
}

TEST_F(OptionsTest, PathsWithCommasFitInTheEnvironment) {
  const Environment data("NANOCHAT_DATA_DIR", "[\"a,b\",\"c\"]");
  options_.apply_environment();
  EXPECT_THAT(config_.data_dir, ElementsAre("a,b", "c"));
}

TEST_F(OptionsTest, ResolvedHoldsWhatBelongsToTheRun) {
  const json resolved = options_.resolved();
  EXPECT_EQ(resolved.size(), 8u);
  EXPECT_FALSE(resolved.contains("data_dir"));
  EXPECT_FALSE(option("data_dir").in_resolved());
  EXPECT_EQ(resolved["depth"], 4);
  EXPECT_EQ(resolved["output_dir"], "runs/base");
}

TEST_F(OptionsTest, DifferencesNameOldAndNew) {
  option("dtype").may_change();
  json saved = options_.resolved();
  EXPECT_TRUE(options_.differences(saved).empty());
  saved["depth"] = 6;
  saved["dtype"] = "float32";
  saved["not_an_option_any_more"] = 1;
  saved.erase("lr");
  saved["data_dir"] = "elsewhere";  // of the invocation, not of the run
  const std::vector<OptionDifference> differences = options_.differences(saved);
  ASSERT_EQ(differences.size(), 2u);
  EXPECT_EQ(differences[0].name, "depth");
  EXPECT_EQ(differences[0].text, "depth: 6 → 4");
  EXPECT_FALSE(differences[0].changeable);
  EXPECT_EQ(differences[1].text, "dtype: \"float32\" → \"auto\"");
  EXPECT_TRUE(differences[1].changeable);
}

TEST_F(OptionsTest, ResolvedConfigurationRoundTrips) {
  EXPECT_TRUE(rc::check([](bool compile, int depth, std::int64_t tokens, std::uint64_t seed, double lr, const std::string& text,
                           const std::vector<std::string>& items) {
    RC_PRE(std::isfinite(lr));
    Config config, restored;
    OptionList source, target;
    const auto declare = [](OptionList& list, Config& fields) {
      list.add("compile", &fields.compile, "");
      list.add("depth", &fields.depth, "");
      list.add("tokens", &fields.tokens, "");
      list.add("seed", &fields.seed, "");
      list.add("lr", &fields.lr, "");
      list.add("dtype", &fields.dtype, "");
      list.add("data_dir", &fields.data_dir, "");
    };
    declare(source, config);
    declare(target, restored);
    config.compile = compile;
    config.depth = depth;
    config.tokens = tokens;
    config.seed = seed;
    config.lr = lr;
    for (const char c : text) config.dtype += static_cast<char>(c & 0x7f);  // JSON text is UTF-8
    config.data_dir.clear();
    for (const std::string& item : items) config.data_dir.push_back(std::to_string(item.size()));
    target.apply_json(json::parse(source.resolved().dump()), "resolved");
    RC_ASSERT(target.resolved() == source.resolved());
    RC_ASSERT(restored.lr == lr);
    RC_ASSERT(restored.tokens == tokens);
    RC_ASSERT(restored.seed == seed);
    RC_ASSERT(target.differences(source.resolved()).empty());
  }));
}

TEST_F(OptionsTest, AnEarlierNameIsStillTaken) {
  options_.find("dtype")->formerly("precision");
  EXPECT_EQ(option("precision").name(), "dtype");
  EXPECT_EQ(option("dtype").former_flag(), "--precision");
  EXPECT_EQ(option("depth").former_flag(), "");
  options_.apply_json({{"precision", "float32"}}, "file");
  EXPECT_EQ(config_.dtype, "float32");
  ::setenv("NANOCHAT_PRECISION", "bfloat16", 1);
  options_.apply_environment();
  EXPECT_EQ(config_.dtype, "bfloat16");
  ::setenv("NANOCHAT_DTYPE", "auto", 1);
  options_.apply_environment();
  EXPECT_EQ(config_.dtype, "auto") << "the name of now counts first";
  ::unsetenv("NANOCHAT_PRECISION");
  ::unsetenv("NANOCHAT_DTYPE");
  const auto differences = options_.differences({{"precision", "float32"}});
  ASSERT_EQ(differences.size(), 1U);
  EXPECT_THAT(differences[0].text, HasSubstr("dtype: \"float32\""));
  EXPECT_TRUE(options_.resolved().contains("dtype"));
  EXPECT_FALSE(options_.resolved().contains("precision"));
}

TEST_F(OptionsTest, ANumberBeyondDoubleInAFileIsAnErrorThatNamesIt) {
  const testing::TemporaryDirectory folder;
  testing::write_text(folder / "big.json", "{\"lr\": 1e999}");
  EXPECT_THAT(error_of([&] { options_.apply_file(folder / "big.json"); }),
              HasSubstr("big.json: holds a number beyond the range of double"));
}

TEST(NearestTest, FindsSlipsOfTheFinger) {
  const std::vector<std::string> names = {"depth", "seed", "device_batch_size", "data_dir", "dtype"};
  EXPECT_EQ(nearest("dpeth", names), "depth");
  EXPECT_EQ(nearest("depht", names), "depth");
  EXPECT_EQ(nearest("seeds", names), "seed");
  EXPECT_EQ(nearest("device_batchsize", names), "device_batch_size");
  EXPECT_EQ(nearest("batch_size", names), "device_batch_size");  // half of a name
  EXPECT_EQ(nearest("temperature", names), "");
  EXPECT_EQ(nearest("x", names), "");
  EXPECT_EQ(nearest("depth", {}), "");
}

}  // namespace
}  // namespace nanochat
