// Bytes of GGUF files, put together by hand.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

#include "mixtral/io/gguf.hpp"

namespace mixtral::test {

template <class T>
void put(std::string& out, T number) {
  char bytes[sizeof number];
  std::memcpy(bytes, &number, sizeof number);
  out.append(bytes, sizeof bytes);
}
inline void put(std::string& out, const std::string& text) {
  put(out, std::uint64_t{text.size()});
  out += text;
}

inline std::string gguf_header(std::uint64_t n_tensors, std::uint64_t n_keys, std::uint32_t version = 3) {
  std::string out = "GGUF";
  put(out, version);
  put(out, n_tensors);
  put(out, n_keys);
  return out;
}

template <class T>
std::string gguf_key(const std::string& name, GgufType type, T value) {
  std::string out;
  put(out, name);
  put(out, static_cast<std::uint32_t>(type));
  put(out, value);
  return out;
}

}  // namespace mixtral::test
