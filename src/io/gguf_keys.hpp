// The keys of a GGUF file that is to be written. Each function is named as the one of GgufFile that reads the value.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "mixtral/io/gguf.hpp"

namespace mixtral {

class GgufKeys {
 public:
  // A u32, as other programs want it. Throws Error(kInvalidArgument) with the key and the value if it is too large.
  void integer(std::string_view key, Index value);
  void number(std::string_view key, float value);
  void boolean(std::string_view key, bool value);
  void text(std::string_view key, std::string_view value);
  void texts(std::string_view key, std::span<const std::string> values);
  void floats(std::string_view key, std::span<const float> values);
  void integers(std::string_view key, std::span<const std::int32_t> values);
  // As it lies in another file.
  void copy(const GgufKey& key);

  Index count() const noexcept { return count_; }
  // What a file of version 3 with these keys begins with.
  std::string header(Index n_tensors) const;

 private:
  void begin(std::string_view key, GgufType type);
  void begin_array(std::string_view key, GgufType element, std::size_t count);

  std::string bytes_;
  Index count_ = 0;
};

// As they lie in a file: a number, lowest byte first, and a text with its length in front.
void append_gguf(std::string& out, std::uint32_t number);
void append_gguf(std::string& out, std::uint64_t number);
void append_gguf(std::string& out, std::string_view text);

}  // namespace mixtral
