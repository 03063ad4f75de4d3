// The one number of a configuration that a tokenizer needs.
#include "io/hf_config.hpp"
#include "io/params.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/core/file.hpp"
#include "mixtral/io/checkpoint.hpp"
#include "mixtral/io/packed.hpp"

namespace mixtral {

Index read_vocab_size(const std::filesystem::path& path) {
  std::error_code ignored;
  try {
    if (std::filesystem::is_regular_file(path, ignored)) return load_packed(path).config.vocab_size;
    if (may_exist(path / "config.json")) return read_hf_config(path).model.vocab_size;
    if (may_exist(path / "params.json")) return read_params(path).vocab_size;
  } catch (const Error&) {  // a configuration of something else: then nothing is known
  }
  return 0;
}

}  // namespace mixtral
