// Any bytes as a safetensors file: refused with an Error, or entries whose data lie within the bytes and fill them.
#include "mixtral/io/safetensors.hpp"

#include "expect.hpp"
#include "mixtral/core/error.hpp"

using namespace mixtral;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::byte> bytes = std::as_bytes(std::span(data, size));
  try {
    const SafetensorsFile file(bytes, "input");
    std::size_t total = 0;
    unsigned sum = 0;
    for (const SafetensorsEntry& entry : file.entries()) {
      fuzz::expect(file.find(entry.name) == &entry, "an entry is found by its name");
      total += entry.data.size();
      for (const std::byte b : entry.data) sum += std::to_integer<unsigned>(b);  // all of it can be read
    }
    unsigned want = 0;
    fuzz::expect(total <= size, "the tensors are no larger than the file");
    for (const std::byte b : bytes.last(total)) want += std::to_integer<unsigned>(b);
    fuzz::expect(sum == want, "the tensors are the end of the file, each byte once");
  } catch (const Error& error) {
    fuzz::expect(error.code() != ErrorCode::kInternal, "a bad file is no defect of the library");
  }
  return 0;
}
