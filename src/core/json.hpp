// JSON of configuration files: a bounded parse into plain values, and a reader whose errors name the file,
// the key and the offending value.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "mixtral/core/types.hpp"

namespace mixtral::json {

struct Value;
struct Member;
using Array = std::vector<Value>;
using Object = std::vector<Member>;  // in the file's order; no key comes twice

// A number that is no signed 64-bit integer: a fraction, an exponent, or too many digits; or NaN, Infinity, -Infinity.
struct Real {
  double value;
  std::string text;  // as it stands in the file
};

struct Value {
  std::variant<std::nullptr_t, bool, Index, Real, std::string, Array, Object> data;

  // nullptr if it is something else.
  template <class T>
  const T* get() const noexcept {
    return std::get_if<T>(&data);
  }
};

struct Member {
  std::string key;
  Value value;
};

// Refuses what is not UTF-8 JSON, a key given twice in one object, numbers outside double, and nesting beyond
// `kMaxDepth`. NaN, Infinity and -Infinity, which Python's json writes, are values: the getters below refuse them where
// a number is wanted. Memory: at most about 60 bytes per byte of text. Throws Error(kBadFormat) that begins with
// `name`.
inline constexpr std::size_t kMaxDepth = 64;
Value parse(std::string_view text, std::string_view name);

// The JSON library takes a NUL for the end and would not see what follows. Throws Error(kBadFormat) that begins with
// `name` if there is one.
void refuse_nul(std::string_view text, std::string_view name);

// As parse(); the name is the path. Throws also as read_file() does, with its `max_bytes`.
Value parse_file(const std::filesystem::path& path, Index max_bytes);

// In quotes, escaped, at most about 100 bytes: fit to stand in a message although a stranger wrote it.
std::string quote(std::string_view text);

// For messages: -8, "8", null, an array, an object.
std::string describe(const Value& value);

// The whole value as one line of ASCII, members sorted by key: equal values give equal texts.
std::string dump(const Value& value);

// The reason inside the text of a parse error of the JSON library, without its codes and the bytes it read.
std::string parse_error_reason(std::string_view what);

// A name that occurs more than once.
std::optional<std::string_view> first_duplicate(std::vector<std::string_view> names);

// Reads the members of one object. A member that is null counts as absent. Every getter throws
// Error(kBadFormat): "<where>: hidden_size is -8, expected an integer from 1 to 268435456".
// The value must outlive the reader.
class ObjectReader {
 public:
  // Throws unless `value` is an object.
  ObjectReader(const Value& value, std::string where);

  const std::string& where() const noexcept { return where_; }
  // Also true if it is null.
  bool has(std::string_view key) const noexcept;
  // nullptr: absent or null.
  const Value* find(std::string_view key) const noexcept;
  const Value& at(std::string_view key) const;

  Index integer(std::string_view key, Index least, Index most) const;
  std::optional<Index> optional_integer(std::string_view key, Index least, Index most) const;
  // A finite float32 in [least, most].
  float number(std::string_view key, float least, float most) const;
  std::optional<float> optional_number(std::string_view key, float least, float most) const;
  bool boolean(std::string_view key, bool fallback) const;
  // nullptr: absent or null.
  const std::string* optional_string(std::string_view key) const;
  const std::string& string(std::string_view key) const;
  // Absent or null: empty. A single integer counts as a list of one.
  std::vector<Index> integer_or_list(std::string_view key, Index least, Index most) const;
  std::optional<ObjectReader> optional_object(std::string_view key) const;
  // nullptr: absent or null.
  const Array* optional_array(std::string_view key) const;
  const Object& object(std::string_view key) const;

  // A member nobody here knows may ask for another computation. null asks for nothing. Throws Error(kUnsupported):
  // "<where>: "lora" is an object, which is not supported".
  void require_known(std::span<const std::string_view> known) const;
  // Throws Error(kBadFormat) about the member: "<where>: key is <value>, expected <expected>".
  [[noreturn]] void fail_member(std::string_view key, const Value& value, std::string_view expected) const;
  // "<where>: key is missing", or that it is null.
  [[noreturn]] void fail_missing(std::string_view key) const;

 private:
  const Member* member(std::string_view key) const noexcept;

  const Object* object_;
  std::string where_;
};

}  // namespace mixtral::json
