// Any bytes as tokenizer.model: refused with an Error, or a tokenizer that works. The text that it has to take is the
// file itself.
#include "mixtral/text/vocabulary_files.hpp"
#include "vocabulary.hpp"

using namespace mixtral;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  fuzz::try_vocabulary([&] { return parse_sentencepiece_model(bytes); }, bytes);
  return 0;
}
