#pragma once
// Reads Python pickles as data: nothing is looked up, constructed or called. A class or function is a pair
// of names; an object is the names, arguments and state that Python would use. Supports what torch.save and
// pickle.dump write for dictionaries, numbers, strings and a few known classes. Other opcodes are refused.
//
// The pickle may be damaged or hostile. Every length is compared with the available bytes, and the number
// of values is limited. Reading takes at most about 64 MB in addition to the pickle. There is no recursion.
//
// Source: CPython, Lib/pickletools.py (opcodes of protocols 0 to 5).

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nanochat {

class PickleReader;

// Immutable after construction; thread-safe.
class Pickle {
 public:
  enum class Kind : std::uint8_t {
    kNone,
    kBool,
    kInt,
    kFloat,
    kString,  // of characters
    kBytes,
    kTuple,
    kList,
    kDict,
    kGlobal,      // the name of a class or function
    kObject,      // names of a callable, its arguments, and what was added to it afterwards
    kPersistent,  // a reference to something outside the pickle
  };

  // A value in the pickle, valid as long as the pickle. Each accessor throws DataError if the value has another type.
  class Value {
   public:
    Kind kind() const;
    const char* kind_name() const;  // "a string"
    bool is_none() const { return kind() == Kind::kNone; }
    std::int64_t integer() const;
    std::string_view string() const;  // bytes as in the pickle, not checked to be UTF-8
    std::string_view bytes() const;
    bool is_global(std::string_view module, std::string_view name) const;
    std::string global_name() const;  // "module.name"
    std::size_t size() const;         // items of a tuple or list, entries of a dict or object
    Value item(std::size_t i) const;  // of a tuple or list
    Value key(std::size_t i) const;   // of a dict or object; a key may occur twice, and Python keeps the last
    Value value(std::size_t i) const;
    Value callable() const;   // of an object: a global
    Value arguments() const;  // a tuple
    Value state() const;      // the argument of its __setstate__; None if it has none
    Value persistent_id() const;

   private:
    friend class Pickle;
    Value(const Pickle& pickle, std::uint32_t index) : pickle_(&pickle), index_(index) {}
    void expect(bool right, const char* expected) const;
    const Pickle* pickle_;
    std::uint32_t index_;
  };

  // `bytes` must outlive the object. Throws DataError with the
  // position of the byte that is damaged or not supported.
  explicit Pickle(std::string_view bytes);
  Value root() const { return {*this, root_}; }

 private:
  friend class PickleReader;
  struct Node {
    Kind kind = Kind::kNone;
    std::uint32_t size = 0;     // of a string or bytes
    std::uint64_t payload = 0;  // the number, the offset of the bytes, the index in containers_ or the persistent id
  };
  struct Container {
    std::vector<std::uint32_t> items;  // a dict's keys and values alternate; a global has module and name
    std::uint32_t callable = 0, arguments = 0, state = 0;
  };

  std::string_view bytes_;
  std::vector<Node> nodes_;  // [0] is None
  std::vector<Container> containers_;
  std::uint32_t root_ = 0;
};

// Writes a pickle, one opcode per call; the caller keeps the order that the
// format requires. torch.load supports protocol 2, which has no bytes().
class PickleWriter {
 public:
  explicit PickleWriter(int protocol);
  void none();
  void boolean(bool value);
  void integer(std::int64_t value);
  void string(std::string_view utf8);
  void bytes(std::string_view bytes);
  void global(std::string_view module, std::string_view name);
  void mark();   // begins a tuple(), or the entries that set_items() adds to the dict below them
  void tuple();  // a tuple of everything since the mark
  void empty_tuple();
  void empty_dict();
  void set_items();
  void reduce();      // replaces callable and arguments by the result of the call
  void new_object();  // replaces class and arguments by an object
  void build();       // gives the object its state
  void persistent_id();
  std::string finish();

 private:
  void number(std::uint64_t value, int bytes);
  std::string out_;
};

}  // namespace nanochat
