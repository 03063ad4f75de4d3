#include "io/gguf_tokenizer.hpp"

#include <cstdint>
#include <cstring>
#include <string>

namespace mixtral {
namespace {

template <class T>
void append(std::string& out, T number) {
  char bytes[sizeof number];
  std::memcpy(bytes, &number, sizeof number);
  out.append(bytes, sizeof bytes);
}

void append(std::string& out, const GgufKey& key) {
  append(out, std::uint64_t{key.name.size()});
  out += key.name;
  append(out, static_cast<std::uint32_t>(key.type));
  if (key.type == GgufType::kArray) {
    append(out, static_cast<std::uint32_t>(key.element));
    append(out, static_cast<std::uint64_t>(key.count));
  }
  out.append(reinterpret_cast<const char*>(key.bytes.data()), key.bytes.size());
}

}  // namespace

std::vector<EmbeddedFile> gguf_tokenizer_files(const GgufFile& file) {
  std::string keys;
  std::uint64_t n = 0;
  for (const GgufKey& key : file.keys()) {
    if (!key.name.starts_with("tokenizer.")) continue;
    append(keys, key);
    ++n;
  }
  if (n == 0) return {};
  std::string out = "GGUF";
  append(out, std::uint32_t{3});
  append(out, std::uint64_t{0});
  append(out, n);
  return {{std::string(kGgufTokenizerName), out + keys}};
}

}  // namespace mixtral
