#include "inference/calculator.h"

#include <malloc.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "core/random.h"

// Counts what this test's program takes from the heap. Not inlined: g++ 12 would take malloc and delete for a mismatch.
namespace {
thread_local std::size_t held_bytes = 0, most_bytes = 0;
}  // namespace

[[gnu::noinline]] void* operator new(std::size_t size) {
  void* memory = std::malloc(size);
  if (memory == nullptr) throw std::bad_alloc();
  held_bytes += ::malloc_usable_size(memory);
  most_bytes = std::max(most_bytes, held_bytes);
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  held_bytes -= ::malloc_usable_size(memory);
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { operator delete(memory); }

namespace nanochat {
namespace {

struct Case {
  const char* expression;
  const char* result;  // null: none
};

void check(const std::vector<Case>& cases) {
  for (const Case& one : cases) {
    const auto result = calculate(one.expression);
    EXPECT_EQ(result, one.result == nullptr ? std::nullopt : std::optional<std::string>(one.result)) << one.expression;
  }
}

// Results as CPython 3.11 prints them.
TEST(Calculator, ComputesAsPython) {
  check({{"12/60", "0.2"},
         {"0.2*50", "10.0"},
         {"1/3", "0.3333333333333333"},
         {"10/5", "2.0"},
         {"0.1+0.2", "0.30000000000000004"},
         {"80,000+50,000", "130000"},
         {"1,0,0", "100"},
         {"10/3*3", "10.0"},
         {"2+3*4", "14"},
         {"(2+3)*4", "20"},
         {"7-2-1", "4"},
         {"16/4/2", "2.0"},
         {"  1 + 1  ", "2"},
         {"--5", "5"},
         {"+-+5", "-5"},
         {"2*-3", "-6"},
         {"2--3", "5"},
         {"-0.0", "-0.0"},
         {"5.", "5.0"},
         {".5", "0.5"},
         {"1.-.5", "0.5"},
         {"00", "0"},
         {"0777.", "777.0"},
         {"7//2", "3"},
         {"-7//2", "-4"},
         {"5//-2", "-3"},
         {"1.5//0.5", "3.0"},
         {"-7//2.0", "-4.0"},
         {"7.5//-2", "-4.0"},
         {"0.0//1", "0.0"},
         {"-0.0//1", "-0.0"},
         {"1/7", "0.14285714285714285"},
         {"123456789*987654321", "121932631112635269"},
         {"9223372036854775807", "9223372036854775807"},
         {"1000000*1000000*10000.0", "1e+16"},
         {"1/100000", "1e-05"},
         {"1/10000", "0.0001"},
         {"25/1000000", "2.5e-05"},
         {"9999999999999998.0", "9999999999999998.0"},
         {"1.0", "1.0"},
         {"((((1))))", "1"}});
}

TEST(Calculator, CountsAsPython) {
  check({{"'strawberry'.count('r')", "3"},
         {"\"banana\".count(\"an\")", "2"},
         {"'aaa'.count('aa')", "1"},
         {"'a'.count('')", "2"},
         {"''.count('')", "1"},
         {"\"it's\".count('s')", "1"},
         {"'a' 'b'.count('b')", "1"},
         {"('abc').count('a')", "1"},
         {"('abc'.count('a'))", "1"},
         {"(('abc')).count((('a')))", "1"},
         {" 'abc'.count( 'a' ) ", "1"},
         {"'Abc'.count('a')", "0"},
         {"'a b c'.count(' ')", "2"},
         {"'a,b'.count(',')", "3"},
         {"'a'.count('a', 'b')", "0"},  // the commas go first, as in the reference
         {"'opening'.count('n')", "2"},
         {"'abc' .count('c')", "1"}});
}

TEST(Calculator, HasNoResultForAnythingElse) {
  check({{"", nullptr},
         {" ", nullptr},
         {"1+", nullptr},
         {"*1", nullptr},
         {"2**3", nullptr},
         {"2* *3", nullptr},
         {"1/0", nullptr},
         {"1//0", nullptr},
         {"1/0.0", nullptr},
         {"1.0//0", nullptr},
         {"()", nullptr},
         {"(1", nullptr},
         {"1)", nullptr},
         {"1 1", nullptr},
         {"(1)(2)", nullptr},
         {"0777", nullptr},
         {"1..2", nullptr},
         {".", nullptr},
         {"1.2.3", nullptr},
         {"7%3", nullptr},
         {"1e5", nullptr},
         {"1_000", nullptr},
         {"0x10", nullptr},
         {"9223372036854775808", nullptr},
         {"9223372036854775807+1", nullptr},
         {"9007199254740993/3", nullptr},
         {"1\n", nullptr},
         {"x", nullptr},
         {"print(1)", nullptr},
         {"\xff", nullptr},
         {"1+\xc3\xa9", nullptr},
         {"'a'", nullptr},
         {"'a'.count()", nullptr},
         {"'a'.count('a'", nullptr},
         {"'a'.count('a')+1", nullptr},
         {"'a.count('a')", nullptr},
         {"'a'.upper()", nullptr},
         {"a.count('a')", nullptr},
         {"'a'.count(1)", nullptr},
         {"'a'.count('a').real", nullptr},
         {"'a'.count ('a')", nullptr},
         {"'''a'''.count('a')", nullptr},
         {"b'a'.count(b'a')", nullptr},
         {"('a'.count)('a')", nullptr},
         {"('a'.count('a')", nullptr},
         {"'a\\'b'.count('b')", nullptr},
         {"__import__('os').count('a')", nullptr}});
}

TEST(Calculator, HasLimits) {
  const auto repeated = [](const std::string& text, int times) {
    std::string all;
    for (int i = 0; i < times; ++i) all += text;
    return all;
  };
  EXPECT_EQ(calculate(repeated("(", 31) + "1" + repeated(")", 31)), "1");
  EXPECT_EQ(calculate(repeated("(", 32) + "1" + repeated(")", 32)), std::nullopt);
  EXPECT_EQ(calculate(repeated("-", 200) + "1"), std::nullopt);
  EXPECT_EQ(calculate(repeated("(", 100) + "'a'.count('a')" + repeated(")", 100)), std::nullopt);
  EXPECT_EQ(calculate(repeated("1+", 127) + "1"), "128");
  EXPECT_EQ(calculate(repeated("1+", 128) + "1"), std::nullopt) << "257 bytes";
  EXPECT_EQ(calculate(repeated("9", 200) + ".0*" + repeated("9", 40) + ".0"), "1e+240");
  EXPECT_EQ(calculate("9" + repeated("0", 120) + ".0*1" + repeated("0", 120) + ".0"), "9e+240");
  EXPECT_EQ(calculate(std::string(1 << 20, '(')), std::nullopt);
  EXPECT_EQ(calculate(std::string("1\0", 2)), std::nullopt);
}

TEST(PythonFloat, IsRepr) {
  const std::vector<std::pair<double, const char*>> cases = {{0.1, "0.1"},
                                                             {-1.5, "-1.5"},
                                                             {100.0, "100.0"},
                                                             {1e15, "1000000000000000.0"},
                                                             {1e16, "1e+16"},
                                                             {1.25e20, "1.25e+20"},
                                                             {1e-4, "0.0001"},
                                                             {1.5e-5, "1.5e-05"},
                                                             {1e100, "1e+100"},
                                                             {-1e-300, "-1e-300"},
                                                             {5e-324, "5e-324"},
                                                             {0.0, "0.0"},
                                                             {-0.0, "-0.0"},
                                                             {123456.789, "123456.789"},
                                                             {1.7976931348623157e308, "1.7976931348623157e+308"}};
  for (const auto& [value, text] : cases) EXPECT_EQ(python_float(value), text);
  EXPECT_EQ(python_float(INFINITY), "inf");
  EXPECT_EQ(python_float(-INFINITY), "-inf");
  EXPECT_EQ(python_float(NAN), "nan");
}

// As few digits as give the value back, whatever the value.
TEST(PythonFloat, IsTheShortestThatReadsBack) {
  Rng rng(3);
  for (int i = 0; i < 20'000; ++i) {
    const double value = rng.normal() * std::pow(10.0, static_cast<double>(rng.between(-30, 30)));
    const std::string text = python_float(value);
    EXPECT_EQ(std::strtod(text.c_str(), nullptr), value) << text;
    char shortest[64];
    int precision = 0;
    do {
      std::snprintf(shortest, sizeof shortest, "%.*e", precision++, value);
    } while (std::strtod(shortest, nullptr) != value);
    const auto digits = [](std::string number) {
      number.resize(std::min(number.find('e'), number.size()));
      std::erase_if(number, [](char c) { return c < '0' || c > '9'; });
      number.erase(0, number.find_first_not_of('0'));
      number.erase(number.find_last_not_of('0') + 1);
      return number;
    };
    EXPECT_EQ(digits(text), digits(shortest));
  }
}

// An expression as a tree that knows its own value: the witness has no parser.
struct Tree {
  std::string text;
  bool real = false;
  bool defined = true;
  std::int64_t integer = 0;
  double value = 0.0;  // also of an integer; all here are below 2^53
};

Tree leaf(Rng& rng) {
  Tree tree;
  tree.integer = rng.between(0, 90);
  tree.real = rng.below(4) == 0;
  tree.value = static_cast<double>(tree.integer) + (tree.real ? 0.25 * static_cast<double>(rng.below(4)) : 0.0);
  if (tree.real) {
    char text[32];
    std::snprintf(text, sizeof text, "%.2f", tree.value);
    tree.text = text;
  } else {
    tree.text = std::to_string(tree.integer);
  }
  return tree;
}

Tree grow(Rng& rng, int depth) {
  if (depth == 0 || rng.below(5) == 0) return leaf(rng);
  const Tree a = grow(rng, depth - 1), b = grow(rng, depth - 1);
  const char sign = "+-*/"[rng.below(4)];
  Tree tree;
  const std::string space = rng.below(3) == 0 ? " " : "";
  tree.text = "(" + a.text + space + sign + space + b.text + ")";
  tree.real = a.real || b.real || sign == '/';
  tree.defined = a.defined && b.defined && !(sign == '/' && b.value == 0.0);
  if (!tree.defined) return tree;
  tree.value = sign == '+'   ? a.value + b.value
               : sign == '-' ? a.value - b.value
               : sign == '*' ? a.value * b.value
                             : a.value / b.value;
  tree.integer = sign == '+' ? a.integer + b.integer : sign == '-' ? a.integer - b.integer : a.integer * b.integer;
  if (!tree.real) tree.value = static_cast<double>(tree.integer);  // an integer has no negative zero
  return tree;
}

TEST(Calculator, AgreesWithTreesThatKnowTheirValue) {
  Rng rng(11);
  std::size_t defined = 0;
  for (int i = 0; i < 50'000; ++i) {
    Tree tree = grow(rng, 3);
    if (rng.below(4) == 0 && tree.defined) {
      tree.text = "-" + tree.text;
      tree.integer = -tree.integer;
      tree.value = tree.real ? -tree.value : static_cast<double>(tree.integer);
    }
    const auto result = calculate(tree.text);
    ASSERT_EQ(result.has_value(), tree.defined) << tree.text;
    if (!tree.defined) continue;
    ++defined;
    if (tree.real) {
      ASSERT_EQ(*result, python_float(tree.value)) << tree.text;
    } else {
      ASSERT_EQ(*result, std::to_string(tree.integer)) << tree.text;
    }
  }
  EXPECT_GT(defined, 40'000U);
}

// Time of this thread alone: a busy machine must not count.
double thread_seconds() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// A million inputs made of what expressions are made of: none is slow or takes much memory, none has a long result.
TEST(Calculator, AnswersAMillionInputsAtOnce) {
  static constexpr std::array<const char*, 28> kPieces = {"0",
                                                          "1",
                                                          "9",
                                                          "25",
                                                          "3.5",
                                                          ".",
                                                          "(",
                                                          ")",
                                                          "+",
                                                          "-",
                                                          "*",
                                                          "/",
                                                          "//",
                                                          " ",
                                                          ",",
                                                          "'",
                                                          "\"",
                                                          "a",
                                                          "banana",
                                                          ".count(",
                                                          "'a'",
                                                          "')",
                                                          "_",
                                                          "\n",
                                                          "\xff",
                                                          "9999999999999999999",
                                                          "'abc'.count('",
                                                          "0000"};
  Rng rng(17);
  std::size_t results = 0;
  double slowest = 0.0;
  std::size_t largest = 0;
  std::string input;
  for (int i = 0; i < 1'000'000; ++i) {
    input.clear();
    const std::uint64_t pieces = rng.below(rng.below(10) == 0 ? 300 : 12);
    for (std::uint64_t k = 0; k < pieces; ++k) input += kPieces[rng.below(kPieces.size())];
    const std::size_t before = held_bytes;
    most_bytes = before;
    const double begin = thread_seconds();
    const auto result = calculate(input);
    slowest = std::max(slowest, thread_seconds() - begin);
    largest = std::max(largest, most_bytes - before);
    if (!result) continue;
    ++results;
    ASSERT_LE(result->size(), 32U) << input;
  }
  EXPECT_GT(results, 10'000U);
  constexpr double kSeconds = 0.05;
  constexpr std::size_t kBytes = 10'000'000;
  EXPECT_LT(slowest, kSeconds);
  EXPECT_LT(largest, kBytes);
  EXPECT_GT(largest, 0U) << "nothing was counted";
}

}  // namespace
}  // namespace nanochat
