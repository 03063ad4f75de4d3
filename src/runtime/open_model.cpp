#include "mixtral/runtime/open_model.hpp"

#include "mixtral/core/error.hpp"
#include "mixtral/core/float_environment.hpp"
#include "mixtral/text/vocabulary_files.hpp"

namespace mixtral {

const Tokenizer& OpenedModel::require_tokenizer() const {
  require(tokenizer.has_value(), ErrorCode::kNotFound, path.string(),
          ": no tokenizer file to read text with, give token ids");
  return *tokenizer;
}

OpenedModel open_model(const std::filesystem::path& path, const LoadOptions& options) {
  const FloatScope floats;
  OpenedModel opened{path, load_checkpoint(path, options), {}};
  // A packed file has brought its own along.
  const std::vector<EmbeddedFile>& own = opened.model.files;
  const std::vector<EmbeddedFile> files = own.empty() ? read_tokenizer_files(path) : own;
  if (files.empty()) return opened;
  opened.tokenizer = Tokenizer(parse_tokenizer_files(files, path.string()));
  const Index pieces = opened.tokenizer->vocabulary().size(), vocab_size = opened.model.config.vocab_size;
  require(pieces <= vocab_size, ErrorCode::kBadFormat, path.string(), ": the tokenizer has ", pieces,
          " pieces, the model ", vocab_size);
  return opened;
}

}  // namespace mixtral
