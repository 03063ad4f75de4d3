// Any text as the JSON header of a packed file, whose data are zeros as far as the text counts on them: refused with an
// Error that begins with the file's name, or a model whose weights are such zeros.
#include <algorithm>
#include <cstdlib>
#include <string>

#include "bytes.hpp"
#include "expect.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/io/packed.hpp"
#include "support/checkpoint_files.hpp"

using namespace mixtral;

namespace {

// Where the tensor that ends last says it ends, if that is not too far.
std::size_t data_bytes(const std::string& header) {
  constexpr std::string_view kOffsets = "\"data_offsets\":[";
  constexpr unsigned long long kMost = 1 << 20;
  unsigned long long most = 0;
  for (std::size_t at = header.find(kOffsets); at != header.npos; at = header.find(kOffsets, at + 1)) {
    const std::size_t comma = header.find(',', at);
    if (comma != header.npos) most = std::max(most, std::strtoull(header.c_str() + comma + 1, nullptr, 10));
  }
  return static_cast<std::size_t>(std::min(most, kMost));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const test::TempDir dir;
  const std::filesystem::path path = dir / "input";
  std::string header(fuzz::Bytes(data, size).rest());
  header.resize((8 + header.size() + 4095) / 4096 * 4096 - 8, ' ');
  test::write_text(path, test::with_header(header, std::string(data_bytes(header), '\0')));
  for (const Head head : {Head::kRequired, Head::kNone}) {
    try {
      const Checkpoint model = load_packed(path, head);
      model.model.config.validate();
      validate(model.model.weights, model.model.config);
      bool zeros = true;
      for_each_tensor(model.model.config, [&](const TensorSlot& slot, const Shape<2>&) {
        const MatrixView& w = model.model.weights.at(slot);
        zeros = zeros && std::all_of(w.data, w.data + w.storage_bytes(), [](std::byte b) { return b == std::byte{0}; });
      });
      fuzz::expect(zeros, "weights lie in the data");
      SerialExecutor executor;
      verify_packed(path, executor);
    } catch (const Error& error) {
      fuzz::expect(error.code() != ErrorCode::kInternal, "a bad file is no defect of the library");
      fuzz::expect(std::string_view(error.what()).starts_with(path.string()), "the message begins with the file");
    }
  }
  return 0;
}
