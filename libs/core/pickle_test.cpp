#include "core/pickle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <limits>

#include "core/errors.h"
#include "core/random.h"

namespace nanochat {
namespace {

using ::testing::HasSubstr;
using Kind = Pickle::Kind;
using namespace std::string_literals;

std::string error_of(const std::string& bytes) {
  try {
    const Pickle pickle(bytes);
  } catch (const DataError& error) {
    return error.what();
  }
  return "no error";
}

TEST(Pickle, ReadsWhatPythonWrites) {
  // pickle.dumps({"a": [1, -2, 70000, 1 << 40, None, True], b"\xff": (0.5,)}, protocol=4)
  const std::string bytes =
      "\x80\x04\x95\x32\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01"s
      "a\x94]\x94(K\x01J\xfe\xff\xff\xffJp\x11\x01\x00\x8a\x06\x00\x00\x00\x00\x00\x01N\x88"s
      "eC\x01\xff\x94G?\xe0\x00\x00\x00\x00\x00\x00\x85\x94u."s;
  const Pickle pickle(bytes);
  const Pickle::Value root = pickle.root();
  ASSERT_EQ(root.kind(), Kind::kDict);
  ASSERT_EQ(root.size(), 2U);
  EXPECT_EQ(root.key(0).string(), "a");
  const Pickle::Value list = root.value(0);
  ASSERT_EQ(list.size(), 6U);
  EXPECT_EQ(list.item(0).integer(), 1);
  EXPECT_EQ(list.item(1).integer(), -2);
  EXPECT_EQ(list.item(2).integer(), 70000);
  EXPECT_EQ(list.item(3).integer(), std::int64_t{1} << 40);
  EXPECT_TRUE(list.item(4).is_none());
  EXPECT_EQ(list.item(5).kind(), Kind::kBool);
  EXPECT_EQ(root.key(1).bytes(), "\xff");
  EXPECT_EQ(root.value(1).item(0).kind(), Kind::kFloat);
}

TEST(Pickle, ShowsObjectsWithoutMakingThem) {
  // What would run a command in Python: os.system("true") as the value of an attribute.
  const std::string bytes =
      "\x80\x02"
      "cos\nsystem\nq\x00X\x04\x00\x00\x00trueq\x01\x85q\x02Rq\x03}q\x04X\x01\x00\x00\x00kK\x05sb."s;
  const Pickle pickle(bytes);
  const Pickle::Value root = pickle.root();
  ASSERT_EQ(root.kind(), Kind::kObject);
  EXPECT_TRUE(root.callable().is_global("os", "system"));
  EXPECT_FALSE(root.callable().is_global("os", "remove"));
  EXPECT_EQ(root.callable().global_name(), "os.system");
  EXPECT_EQ(root.arguments().item(0).string(), "true");
  EXPECT_EQ(root.state().value(0).integer(), 5);
}

TEST(Pickle, ReadsPersistentIdsAndTheMemo) {
  const std::string bytes = "\x80\x02X\x01\x00\x00\x00xq\x05Q(h\x05j\x05\x00\x00\x00t\x86."s;
  const Pickle pickle(bytes);
  EXPECT_EQ(pickle.root().item(0).persistent_id().string(), "x");
  EXPECT_EQ(pickle.root().item(1).item(1).string(), "x");
}

TEST(Pickle, ReturnsWhatWasWritten) {
  EXPECT_TRUE(rc::check("integers, strings and bytes", [](const std::vector<std::int64_t>& numbers, const std::string& text) {
    PickleWriter writer(4);
    writer.mark();
    for (const std::int64_t number : numbers) writer.integer(number);
    writer.string(text);
    writer.bytes(text);
    writer.none();
    writer.boolean(true);
    writer.tuple();
    const std::string bytes = writer.finish();
    const Pickle pickle(bytes);
    const Pickle::Value tuple = pickle.root();
    RC_ASSERT(tuple.size() == numbers.size() + 4);
    for (std::size_t i = 0; i < numbers.size(); ++i) RC_ASSERT(tuple.item(i).integer() == numbers[i]);
    RC_ASSERT(tuple.item(numbers.size()).string() == text);
    RC_ASSERT(tuple.item(numbers.size() + 1).bytes() == text);
    RC_ASSERT(tuple.item(numbers.size() + 2).is_none());
  }));
  for (const std::int64_t number :
       {std::int64_t{0}, std::int64_t{255}, std::int64_t{256}, std::int64_t{65535}, std::int64_t{65536}, std::int64_t{-1},
        std::int64_t{1} << 31, std::numeric_limits<std::int64_t>::min()}) {
    PickleWriter writer(2);
    writer.integer(number);
    const std::string bytes = writer.finish();
    EXPECT_EQ(Pickle(bytes).root().integer(), number);
  }
}

TEST(Pickle, RefusesDamage) {
  EXPECT_THAT(error_of(""), HasSubstr("byte 0: 1 bytes are claimed, but 0 are left"));
  EXPECT_THAT(error_of("\x80\x06N."s), HasSubstr("is of protocol 6"));
  EXPECT_THAT(error_of("X\xff\xff\xff\xff"s), HasSubstr("4294967295 bytes are claimed, but 0 are left"));
  EXPECT_THAT(error_of("\x8e\xff\xff\xff\xff\xff\xff\xff\xff"s), HasSubstr("bytes are claimed"));
  EXPECT_THAT(error_of("."), HasSubstr("more or less than one value"));
  EXPECT_THAT(error_of("NN."), HasSubstr("more or less than one value"));
  EXPECT_THAT(error_of("N.N"), HasSubstr("1 bytes follow its end"));
  EXPECT_THAT(error_of("0."), HasSubstr("byte 0: takes a value that was never given"));
  EXPECT_THAT(error_of("N(0."), HasSubstr("byte 2: takes a value that was never given"));
  EXPECT_THAT(error_of("NN(s"), HasSubstr("fills a container that was never given"));
  EXPECT_THAT(error_of("t."), HasSubstr("ends a group that never began"));
  EXPECT_THAT(error_of("NNa."), HasSubstr("puts values where none can be put"));
  EXPECT_THAT(error_of("}(Nu."), HasSubstr("puts values where none can be put"));
  EXPECT_THAT(error_of("h\x07."s), HasSubstr("recalls a value at place 7"));
  EXPECT_THAT(error_of("Nr\xff\xff\xff\xff."s), HasSubstr("remembers a value at place 4294967295"));
  EXPECT_THAT(error_of("N)R."), HasSubstr("otherwise than from a name"));
  EXPECT_THAT(error_of("NNb."), HasSubstr("gives a state to what takes none"));
  EXPECT_THAT(error_of("NN\x93."s), HasSubstr("a class has no name"));
  EXPECT_THAT(error_of("cos\nsystem"), HasSubstr("a line has no end"));
  EXPECT_THAT(error_of("\x8a\x09"s + std::string(9, '\0')), HasSubstr("an integer of 9 bytes"));
  EXPECT_THAT(error_of("S'text'\n."), HasSubstr("opcode 0x53 is not one"));
}

TEST(Pickle, LimitsWhatFewBytesAskFor) {
  EXPECT_THAT(error_of(std::string(2'000'000, ')')), HasSubstr("more than 131072 containers"));
  EXPECT_THAT(error_of(std::string(2'000'000, 'N')), HasSubstr("stacks more than 1048576 values"));
  EXPECT_THAT(error_of(std::string(2'000'000, '(')), HasSubstr("opens more than 131072 groups"));
  std::string popped;
  for (int i = 0; i < 1'100'000; ++i)
    popped +=
        "K\x01"
        "0"s;
  EXPECT_THAT(error_of(popped), HasSubstr("more than 1048576 values"));
  // A tuple of two, each of which is the tuple before: 2^n values for Python, n for us. A list that holds itself.
  std::string doubling = "N";
  for (int i = 0; i < 100'000; ++i) doubling += "q\0h\0\x86"s;
  EXPECT_EQ(error_of(doubling + "."), "no error");
  EXPECT_EQ(error_of("]q\0h\0a."s), "no error");
}

TEST(Pickle, AccessorsSayWhatTheyFound) {
  const std::string bytes = "N.";
  const Pickle pickle(bytes);
  const Pickle::Value none = pickle.root();
  EXPECT_THROW(none.integer(), DataError);
  EXPECT_THROW(none.string(), DataError);
  EXPECT_THROW(none.bytes(), DataError);
  EXPECT_THROW(none.size(), DataError);
  EXPECT_THROW(none.item(0), DataError);
  EXPECT_THROW(none.key(0), DataError);
  EXPECT_THROW(none.value(0), DataError);
  EXPECT_THROW(none.callable(), DataError);
  EXPECT_THROW(none.arguments(), DataError);
  EXPECT_THROW(none.state(), DataError);
  EXPECT_THROW(none.persistent_id(), DataError);
  EXPECT_THROW(none.global_name(), DataError);
  try {
    none.integer();
  } catch (const DataError& error) {
    EXPECT_STREQ(error.what(), "pickle: found None, expected an integer");
  }
}

TEST(Pickle, SurvivesNoise) {
  Rng rng(11);
  const std::string opcodes = "(.0GJKMNQRXabcehjqrstu)]}BC\x80\x81\x85\x86\x87\x88\x89\x8a\x8c\x8d\x8e\x93\x94\x95\n"s;
  int read = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes;
    for (std::size_t i = 0, size = rng.below(30); i < size; ++i) {
      bytes += rng.below(3) == 0 ? static_cast<char>(rng.below(8)) : opcodes[rng.below(opcodes.size())];
    }
    read += error_of(bytes + ".") == "no error" ? 1 : 0;
  }
  EXPECT_GT(read, 20);
}

}  // namespace
}  // namespace nanochat
