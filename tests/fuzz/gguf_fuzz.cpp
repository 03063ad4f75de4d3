// Any bytes as a GGUF file: refused with an Error, or a model whose weights and vocabulary fit its configuration.
#include "expect.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/io/checkpoint.hpp"
#include "mixtral/text/vocabulary_files.hpp"
#include "support/temp_dir.hpp"

using namespace mixtral;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const test::TempDir dir;
  const std::filesystem::path path = dir / "input.gguf";
  test::write_text(path, {reinterpret_cast<const char*>(data), size});
  try {
    const Checkpoint model = load_checkpoint(path);
    model.model.config.validate();
    validate(model.model.weights, model.model.config);
    if (!model.files.empty()) parse_tokenizer_files(model.files, "input").validate();
  } catch (const Error& error) {
    fuzz::expect(error.code() != ErrorCode::kInternal, "a bad file is no defect of the library");
  }
  return 0;
}
