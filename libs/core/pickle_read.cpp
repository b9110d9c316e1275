#include <bit>
#include <cstring>
#include <limits>

#include <spdlog/fmt/fmt.h>

#include "core/errors.h"
#include "core/format.h"
#include "core/pickle.h"

namespace nanochat {
namespace {

// A vocabulary of 500,000 tokens has a million values, a model of a thousand tensors some ten thousand containers.
constexpr std::size_t kMaxValues = std::size_t{1} << 20;
constexpr std::size_t kMaxContainers = std::size_t{1} << 17;
constexpr std::size_t kMaxItems = std::size_t{1} << 21;  // of all containers together; values may be in several

enum Opcode : unsigned char {
  kMark = '(',
  kStop = '.',
  kPop = '0',
  kBinFloat = 'G',
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kNone = 'N',
  kBinPersId = 'Q',
  kReduce = 'R',
  kBinUnicode = 'X',
  kAppend = 'a',
  kBuild = 'b',
  kGlobal = 'c',
  kAppends = 'e',
  kBinGet = 'h',
  kLongBinGet = 'j',
  kBinPut = 'q',
  kLongBinPut = 'r',
  kSetItem = 's',
  kTuple = 't',
  kSetItems = 'u',
  kEmptyTuple = ')',
  kEmptyList = ']',
  kEmptyDict = '}',
  kBinBytes = 'B',
  kShortBinBytes = 'C',
  kProto = 0x80,
  kNewObj = 0x81,
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kLong1 = 0x8a,
  kShortBinUnicode = 0x8c,
  kBinUnicode8 = 0x8d,
  kBinBytes8 = 0x8e,
  kStackGlobal = 0x93,
  kMemoize = 0x94,
  kFrame = 0x95,
};

}  // namespace

class PickleReader {
 public:
  using Kind = Pickle::Kind;

  explicit PickleReader(Pickle& pickle) : pickle_(pickle), bytes_(pickle.bytes_) {
    add(Kind::kNone);
    add(Kind::kBool, 0, 0);
    add(Kind::kBool, 0, 1);
  }

  std::uint32_t read() {
    while (true) {
      opcode_at_ = at_;
      const auto opcode = static_cast<unsigned char>(take(1)[0]);
      if (opcode == kStop) break;
      step(opcode);
    }
    if (at_ != bytes_.size()) fail(fmt::format("{} bytes follow its end", bytes_.size() - at_));
    if (stack_.size() != 1 || !marks_.empty()) fail("ends with more or less than one value");
    return stack_[0];
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw DataError(fmt::format("pickle, byte {}: {}", opcode_at_, what));
  }

  std::string_view take(std::uint64_t count) {
    if (count > bytes_.size() - at_) {
      fail(fmt::format("{} bytes are claimed, but {} are left; it is truncated or damaged", count, bytes_.size() - at_));
    }
    const std::string_view taken = bytes_.substr(at_, static_cast<std::size_t>(count));
    at_ += taken.size();
    return taken;
  }
  std::uint64_t number(std::size_t count) {
    std::uint64_t value = 0;
    std::memcpy(&value, take(count).data(), count);
    return value;
  }
  std::string_view line() {
    const std::size_t end = bytes_.find('\n', at_);
    if (end == std::string_view::npos) fail("a line has no end");
    const std::string_view text = take(end - at_);
    take(1);
    return text;
  }

  std::uint32_t add(Kind kind, std::uint32_t size = 0, std::uint64_t payload = 0) {
    if (pickle_.nodes_.size() == kMaxValues) fail(fmt::format("has more than {} values", kMaxValues));
    pickle_.nodes_.push_back({kind, size, payload});
    return static_cast<std::uint32_t>(pickle_.nodes_.size() - 1);
  }
  std::uint32_t add_text(Kind kind, std::string_view text) {
    if (text.size() > std::numeric_limits<std::uint32_t>::max()) fail("holds a text of more than 4 GiB");
    return add(kind, static_cast<std::uint32_t>(text.size()), static_cast<std::uint64_t>(text.data() - bytes_.data()));
  }
  std::uint32_t add_container(Kind kind) {
    if (pickle_.containers_.size() == kMaxContainers) fail(fmt::format("has more than {} containers", kMaxContainers));
    pickle_.containers_.emplace_back();
    return add(kind, 0, pickle_.containers_.size() - 1);
  }
  Pickle::Container& container(std::uint32_t node) {
    return pickle_.containers_[static_cast<std::size_t>(pickle_.nodes_[node].payload)];
  }
  Kind kind(std::uint32_t node) const { return pickle_.nodes_[node].kind; }

  void push(std::uint32_t node) {
    if (stack_.size() == kMaxValues) fail(fmt::format("stacks more than {} values", kMaxValues));
    stack_.push_back(node);
  }
  // Nothing below the last mark may be taken.
  std::size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  std::uint32_t top() const {
    if (stack_.size() <= floor()) fail("takes a value that was never given");
    return stack_.back();
  }
  std::uint32_t pop() {
    const std::uint32_t node = top();
    stack_.pop_back();
    return node;
  }
  std::size_t pop_mark() {
    if (marks_.empty()) fail("ends a group that never began");
    const std::size_t mark = marks_.back();
    marks_.pop_back();
    return mark;
  }

  // Moves the values from `begin` up into a container.
  void fill(std::uint32_t node, std::size_t begin) {
    const std::size_t count = stack_.size() - begin;
    if (count > kMaxItems - items_) fail(fmt::format("puts more than {} values into containers", kMaxItems));
    items_ += count;
    auto& items = container(node).items;
    items.insert(items.end(), stack_.begin() + static_cast<std::ptrdiff_t>(begin), stack_.end());
    stack_.resize(begin);
  }
  void make_tuple(std::size_t begin) {
    const std::uint32_t tuple = add_container(Kind::kTuple);
    fill(tuple, begin);
    push(tuple);
  }
  void short_tuple(std::size_t count) {
    if (stack_.size() - floor() < count) fail("takes a value that was never given");
    make_tuple(stack_.size() - count);
  }
  void put_items(std::size_t begin, bool pairs) {
    const std::size_t count = stack_.size() - begin;
    if (begin <= floor()) fail("fills a container that was never given");
    const std::uint32_t target = stack_[begin - 1];
    const bool fits = pairs ? kind(target) == Kind::kDict || kind(target) == Kind::kObject : kind(target) == Kind::kList;
    if (!fits || (pairs && count % 2 != 0)) fail("puts values where none can be put");
    fill(target, begin);
  }
  void make_global(std::uint32_t module, std::uint32_t name) {
    if (kind(module) != Kind::kString || kind(name) != Kind::kString) fail("a class has no name");
    const std::uint32_t global = add_container(Kind::kGlobal);
    container(global).items = {module, name};
    push(global);
  }
  void make_object() {
    const std::uint32_t arguments = pop(), callable = pop();
    if (kind(callable) != Kind::kGlobal || kind(arguments) != Kind::kTuple) {
      fail("makes an object otherwise than from a name and its arguments");
    }
    const std::uint32_t object = add_container(Kind::kObject);
    container(object).callable = callable;
    container(object).arguments = arguments;
    push(object);
  }
  void build() {
    const std::uint32_t state = pop(), object = top();
    if (kind(object) != Kind::kObject || container(object).state != 0) fail("gives a state to what takes none");
    container(object).state = state;
  }
  void remember(std::uint64_t place) {
    if (place >= kMaxValues) fail(fmt::format("remembers a value at place {}", place));
    if (place >= memo_.size()) memo_.resize(static_cast<std::size_t>(place) + 1, kForgotten);
    memo_[static_cast<std::size_t>(place)] = top();
  }
  void recall(std::uint64_t place) {
    if (place >= memo_.size() || memo_[static_cast<std::size_t>(place)] == kForgotten) {
      fail(fmt::format("recalls a value at place {}, where none was remembered", place));
    }
    push(memo_[static_cast<std::size_t>(place)]);
  }
  void push_int(std::int64_t value) { push(add(Kind::kInt, 0, static_cast<std::uint64_t>(value))); }
  void push_long() {
    const std::size_t count = static_cast<std::size_t>(number(1));
    if (count > 8) fail(fmt::format("holds an integer of {} bytes, more than 8", count));
    std::uint64_t value = number(count);
    const bool negative = count > 0 && (value >> (8 * count - 1) & 1) != 0;
    if (negative && count < 8) value |= ~std::uint64_t{0} << (8 * count);
    push_int(static_cast<std::int64_t>(value));
  }

  void step(unsigned char opcode) {
    switch (opcode) {
      case kProto:
        if (const std::uint64_t version = number(1); version > 5) fail(fmt::format("is of protocol {}", version));
        return;
      case kFrame: number(8); return;  // a hint for buffering; what it claims does not matter
      case kNone: push(0); return;
      case kNewFalse: push(1); return;
      case kNewTrue: push(2); return;
      case kBinInt: push_int(static_cast<std::int32_t>(number(4))); return;
      case kBinInt1: push_int(static_cast<std::int64_t>(number(1))); return;
      case kBinInt2: push_int(static_cast<std::int64_t>(number(2))); return;
      case kLong1: push_long(); return;
      case kBinFloat: push(add(Kind::kFloat, 0, __builtin_bswap64(number(8)))); return;
      case kShortBinUnicode: push(add_text(Kind::kString, take(number(1)))); return;
      case kBinUnicode: push(add_text(Kind::kString, take(number(4)))); return;
      case kBinUnicode8: push(add_text(Kind::kString, take(number(8)))); return;
      case kShortBinBytes: push(add_text(Kind::kBytes, take(number(1)))); return;
      case kBinBytes: push(add_text(Kind::kBytes, take(number(4)))); return;
      case kBinBytes8: push(add_text(Kind::kBytes, take(number(8)))); return;
      case kMark:
        if (marks_.size() == kMaxContainers) fail(fmt::format("opens more than {} groups", kMaxContainers));
        marks_.push_back(stack_.size());
        return;
      case kPop: pop(); return;
      case kEmptyTuple: push(add_container(Kind::kTuple)); return;
      case kEmptyList: push(add_container(Kind::kList)); return;
      case kEmptyDict: push(add_container(Kind::kDict)); return;
      case kTuple: make_tuple(pop_mark()); return;
      case kTuple1: short_tuple(1); return;
      case kTuple2: short_tuple(2); return;
      case kTuple3: short_tuple(3); return;
      case kAppend:
        top();
        put_items(stack_.size() - 1, false);
        return;
      case kAppends: put_items(pop_mark(), false); return;
      case kSetItem:
        if (stack_.size() < 2) fail("takes a value that was never given");
        put_items(stack_.size() - 2, true);
        return;
      case kSetItems: put_items(pop_mark(), true); return;
      case kGlobal: {
        const std::uint32_t module = add_text(Kind::kString, line());
        make_global(module, add_text(Kind::kString, line()));
        return;
      }
      case kStackGlobal: {
        const std::uint32_t name = pop(), module = pop();
        make_global(module, name);
        return;
      }
      case kReduce:
      case kNewObj: make_object(); return;
      case kBuild: build(); return;
      case kBinPersId: push(add(Kind::kPersistent, 0, pop())); return;
      case kMemoize: remember(memo_.size()); return;
      case kBinPut: remember(number(1)); return;
      case kLongBinPut: remember(number(4)); return;
      case kBinGet: recall(number(1)); return;
      case kLongBinGet: recall(number(4)); return;
      default: fail(fmt::format("opcode 0x{:02X} is not one that this reader knows", opcode));
    }
  }

  static constexpr std::uint32_t kForgotten = std::numeric_limits<std::uint32_t>::max();

  Pickle& pickle_;
  std::string_view bytes_;
  std::size_t at_ = 0, opcode_at_ = 0, items_ = 0;
  std::vector<std::uint32_t> stack_, memo_;
  std::vector<std::size_t> marks_;
};

Pickle::Pickle(std::string_view bytes) : bytes_(bytes) {
  static_assert(std::endian::native == std::endian::little, "numbers are read as they lie");
  root_ = PickleReader(*this).read();
}

void Pickle::Value::expect(bool right, const char* expected) const {
  if (!right) throw DataError(fmt::format("pickle: found {}, expected {}", kind_name(), expected));
}

Pickle::Kind Pickle::Value::kind() const { return pickle_->nodes_[index_].kind; }

const char* Pickle::Value::kind_name() const {
  switch (kind()) {
    case Kind::kNone: return "None";
    case Kind::kBool: return "a bool";
    case Kind::kInt: return "an integer";
    case Kind::kFloat: return "a float";
    case Kind::kString: return "a string";
    case Kind::kBytes: return "bytes";
    case Kind::kTuple: return "a tuple";
    case Kind::kList: return "a list";
    case Kind::kDict: return "a dict";
    case Kind::kGlobal: return "a class or function";
    case Kind::kObject: return "an object";
    case Kind::kPersistent: return "a persistent id";
  }
  return "";
}

std::int64_t Pickle::Value::integer() const {
  expect(kind() == Kind::kInt, "an integer");
  return static_cast<std::int64_t>(pickle_->nodes_[index_].payload);
}

std::string_view Pickle::Value::string() const {
  expect(kind() == Kind::kString, "a string");
  const Node& node = pickle_->nodes_[index_];
  return pickle_->bytes_.substr(static_cast<std::size_t>(node.payload), node.size);
}

std::string_view Pickle::Value::bytes() const {
  expect(kind() == Kind::kBytes, "bytes");
  const Node& node = pickle_->nodes_[index_];
  return pickle_->bytes_.substr(static_cast<std::size_t>(node.payload), node.size);
}

bool Pickle::Value::is_global(std::string_view module, std::string_view name) const {
  if (kind() != Kind::kGlobal) return false;
  const auto& names = pickle_->containers_[static_cast<std::size_t>(pickle_->nodes_[index_].payload)].items;
  return Value(*pickle_, names[0]).string() == module && Value(*pickle_, names[1]).string() == name;
}

std::string Pickle::Value::global_name() const {
  expect(kind() == Kind::kGlobal, "a class or function");
  const auto& names = pickle_->containers_[static_cast<std::size_t>(pickle_->nodes_[index_].payload)].items;
  const auto shown = [&](std::uint32_t name) {
    return on_one_line(replace_invalid_utf8(Value(*pickle_, name).string().substr(0, 60)));
  };
  return shown(names[0]) + "." + shown(names[1]);
}

std::size_t Pickle::Value::size() const {
  const bool sequence = kind() == Kind::kTuple || kind() == Kind::kList;
  expect(sequence || kind() == Kind::kDict || kind() == Kind::kObject, "a tuple, list or dict");
  const Container& container = pickle_->containers_[static_cast<std::size_t>(pickle_->nodes_[index_].payload)];
  return container.items.size() / (sequence ? 1 : 2);
}

Pickle::Value Pickle::Value::item(std::size_t i) const {
  expect(kind() == Kind::kTuple || kind() == Kind::kList, "a tuple or list");
  const Container& container = pickle_->containers_[static_cast<std::size_t>(pickle_->nodes_[index_].payload)];
  if (i >= container.items.size()) {
    throw DataError(fmt::format("pickle: a tuple or list of {} items, expected at least {}", container.items.size(), i + 1));
  }
  return {*pickle_, container.items[i]};
}

Pickle::Value Pickle::Value::key(std::size_t i) const {
  expect(kind() == Kind::kDict || kind() == Kind::kObject, "a dict");
  return {*pickle_, pickle_->containers_[static_cast<std::size_t>(pickle_->nodes_[index_].payload)].items.at(2 * i)};
}

Pickle::Value Pickle::Value::value(std::size_t i) const {
  expect(kind() == Kind::kDict || kind() == Kind::kObject, "a dict");
  return {*pickle_, pickle_->containers_[static_cast<std::size_t>(pickle_->nodes_[index_].payload)].items.at(2 * i + 1)};
}

Pickle::Value Pickle::Value::callable() const {
  expect(kind() == Kind::kObject, "an object");
  return {*pickle_, pickle_->containers_[static_cast<std::size_t>(pickle_->nodes_[index_].payload)].callable};
}

Pickle::Value Pickle::Value::arguments() const {
  expect(kind() == Kind::kObject, "an object");
  return {*pickle_, pickle_->containers_[static_cast<std::size_t>(pickle_->nodes_[index_].payload)].arguments};
}

Pickle::Value Pickle::Value::state() const {
  expect(kind() == Kind::kObject, "an object");
  return {*pickle_, pickle_->containers_[static_cast<std::size_t>(pickle_->nodes_[index_].payload)].state};
}

Pickle::Value Pickle::Value::persistent_id() const {
  expect(kind() == Kind::kPersistent, "a persistent id");
  return {*pickle_, static_cast<std::uint32_t>(pickle_->nodes_[index_].payload)};
}

}  // namespace nanochat
