// Where the tensors of a sound GGUF file are: a second opinion, which shares nothing with the library.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace mixtral::test {

struct GgufTensor {
  std::string name;
  std::vector<std::int64_t> dims;  // the fastest first
  std::uint32_t type = 0;
  std::uint64_t offset = 0;  // in the file

  std::int64_t n_weights() const {
    std::int64_t n = 1;
    for (const std::int64_t dim : dims) n *= dim;
    return n;
  }
};

struct GgufContents {
  std::vector<char> bytes;
  std::vector<GgufTensor> tensors;

  const std::byte* data(const GgufTensor& tensor) const {
    return reinterpret_cast<const std::byte*>(bytes.data()) + tensor.offset;
  }
};

namespace detail {

class GgufCursor {
 public:
  explicit GgufCursor(const std::vector<char>& bytes) : bytes_(bytes) {}

  std::uint64_t at() const { return at_; }
  void skip(std::uint64_t n) {
    if (n > bytes_.size() - at_) throw std::runtime_error("test: the GGUF file ends early");
    at_ += n;
  }
  template <class T>
  T number() {
    T value;
    const std::uint64_t from = at_;
    skip(sizeof value);
    std::memcpy(&value, bytes_.data() + from, sizeof value);
    return value;
  }
  std::string text() {
    const auto n = number<std::uint64_t>();
    const std::uint64_t from = at_;
    skip(n);
    return {bytes_.data() + from, n};
  }
  void skip_value(std::uint32_t type) {
    constexpr std::uint32_t kText = 8, kArray = 9;
    constexpr std::uint64_t kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    if (type >= std::size(kBytes)) throw std::runtime_error("test: a GGUF value of no known type");
    if (type == kText) {
      text();
    } else if (type == kArray) {
      const auto of = number<std::uint32_t>();
      for (auto n = number<std::uint64_t>(); n > 0; --n) skip_value(of);
    } else {
      skip(kBytes[type]);
    }
  }

 private:
  const std::vector<char>& bytes_;
  std::uint64_t at_ = 0;
};

}  // namespace detail

inline GgufContents parse_gguf(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  GgufContents file;
  file.bytes.assign(std::istreambuf_iterator<char>(in), {});
  detail::GgufCursor cursor(file.bytes);
  cursor.skip(8);  // magic, version
  file.tensors.resize(cursor.number<std::uint64_t>());
  std::uint32_t alignment = 32;
  for (auto n = cursor.number<std::uint64_t>(); n > 0; --n) {
    const std::string key = cursor.text();
    const auto type = cursor.number<std::uint32_t>();
    if (key == "general.alignment") {
      alignment = cursor.number<std::uint32_t>();
    } else {
      cursor.skip_value(type);
    }
  }
  for (GgufTensor& tensor : file.tensors) {
    tensor.name = cursor.text();
    tensor.dims.resize(cursor.number<std::uint32_t>());
    for (std::int64_t& dim : tensor.dims) dim = cursor.number<std::int64_t>();
    tensor.type = cursor.number<std::uint32_t>();
    tensor.offset = cursor.number<std::uint64_t>();
  }
  const std::uint64_t data = (cursor.at() + alignment - 1) / alignment * alignment;
  for (GgufTensor& tensor : file.tensors) tensor.offset += data;
  return file;
}

}  // namespace mixtral::test
