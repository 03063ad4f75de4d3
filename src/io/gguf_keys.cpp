#include "io/gguf_keys.hpp"

#include <cstring>
#include <limits>

#include "mixtral/core/error.hpp"

namespace mixtral {
namespace {

template <class T>
void append_number(std::string& out, T number) {
  char bytes[sizeof number];
  std::memcpy(bytes, &number, sizeof number);
  out.append(bytes, sizeof bytes);
}

template <class T>
void append_bytes(std::string& out, std::span<const T> values) {
  out.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
}

}  // namespace

void append_gguf(std::string& out, std::uint32_t number) { append_number(out, number); }
void append_gguf(std::string& out, std::uint64_t number) { append_number(out, number); }
void append_gguf(std::string& out, std::string_view text) {
  append_number(out, std::uint64_t{text.size()});
  out += text;
}

void GgufKeys::begin(std::string_view key, GgufType type) {
  append_gguf(bytes_, key);
  append_gguf(bytes_, static_cast<std::uint32_t>(type));
  ++count_;
}

void GgufKeys::begin_array(std::string_view key, GgufType element, std::size_t count) {
  begin(key, GgufType::kArray);
  append_gguf(bytes_, static_cast<std::uint32_t>(element));
  append_gguf(bytes_, std::uint64_t{count});
}

void GgufKeys::integer(std::string_view key, Index value) {
  constexpr auto kMost = static_cast<Index>(std::numeric_limits<std::uint32_t>::max());
  require(value >= 0 && value <= kMost, "GGUF: ", key, " is ", value, ", expected 0 to ", kMost);
  begin(key, GgufType::kU32);
  append_gguf(bytes_, static_cast<std::uint32_t>(value));
}

void GgufKeys::number(std::string_view key, float value) {
  begin(key, GgufType::kF32);
  append_number(bytes_, value);
}

void GgufKeys::boolean(std::string_view key, bool value) {
  begin(key, GgufType::kBool);
  append_number(bytes_, static_cast<std::uint8_t>(value));
}

void GgufKeys::text(std::string_view key, std::string_view value) {
  begin(key, GgufType::kString);
  append_gguf(bytes_, value);
}

void GgufKeys::texts(std::string_view key, std::span<const std::string> values) {
  begin_array(key, GgufType::kString, values.size());
  for (const std::string& value : values) append_gguf(bytes_, std::string_view(value));
}

void GgufKeys::floats(std::string_view key, std::span<const float> values) {
  begin_array(key, GgufType::kF32, values.size());
  append_bytes(bytes_, values);
}

void GgufKeys::integers(std::string_view key, std::span<const std::int32_t> values) {
  begin_array(key, GgufType::kI32, values.size());
  append_bytes(bytes_, values);
}

void GgufKeys::copy(const GgufKey& key) {
  if (key.type == GgufType::kArray) {
    begin_array(key.name, key.element, static_cast<std::size_t>(key.count));
  } else {
    begin(key.name, key.type);
  }
  append_bytes(bytes_, key.bytes);
}

std::string GgufKeys::header(Index n_tensors) const {
  std::string out = "GGUF";
  append_gguf(out, std::uint32_t{3});
  append_gguf(out, static_cast<std::uint64_t>(n_tensors));
  append_gguf(out, static_cast<std::uint64_t>(count_));
  return out + bytes_;
}

}  // namespace mixtral
