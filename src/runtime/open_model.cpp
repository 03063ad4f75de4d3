#include "mixtral/runtime/open_model.hpp"

#include "mixtral/core/error.hpp"
#include "mixtral/text/vocabulary_files.hpp"

namespace mixtral {

const Tokenizer& OpenedModel::require_tokenizer() const {
  require(tokenizer.has_value(), ErrorCode::kNotFound, path.string(),
          ": no tokenizer file to read text with, give token ids");
  return *tokenizer;
}

namespace {

std::vector<TokenizerFile> tokenizer_files(const OpenedModel& opened) {
  std::error_code ignored;
  if (std::filesystem::is_directory(opened.path, ignored)) return read_tokenizer_files(opened.path);
  std::vector<TokenizerFile> files;
  for (const EmbeddedFile& file : opened.model.files) files.push_back({file.name, file.contents});
  return files;
}

}  // namespace

OpenedModel open_model(const std::filesystem::path& path, const LoadOptions& options) {
  OpenedModel opened{path, load_checkpoint(path, options), {}};
  const std::vector<TokenizerFile> files = tokenizer_files(opened);
  if (files.empty()) return opened;
  opened.tokenizer = Tokenizer(parse_tokenizer_files(files, path.string()));
  const Index pieces = opened.tokenizer->vocabulary().size(), vocab_size = opened.model.config.vocab_size;
  require(pieces <= vocab_size, ErrorCode::kBadFormat, path.string(), ": the tokenizer has ", pieces,
          " pieces, the model ", vocab_size);
  return opened;
}

}  // namespace mixtral
