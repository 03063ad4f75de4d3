// Any bytes as a sequence of C ABI calls.
#include "capi_sequence.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static mixtral::fuzz::Counts counts{};
  mixtral::fuzz::play({data, size}, counts);
  return 0;
}
