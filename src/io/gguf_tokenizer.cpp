#include "io/gguf_tokenizer.hpp"

#include "io/gguf_keys.hpp"

namespace mixtral {

std::vector<EmbeddedFile> gguf_tokenizer_files(const GgufFile& file) {
  GgufKeys keys;
  for (const GgufKey& key : file.keys()) {
    if (key.name.starts_with("tokenizer.")) keys.copy(key);
  }
  if (keys.count() == 0) return {};
  return {{std::string(kGgufTokenizerName), keys.header(0)}};
}

}  // namespace mixtral
