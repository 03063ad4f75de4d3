// A checkpoint together with its tokenizer: what a program opens.
#pragma once

#include <filesystem>
#include <optional>

#include "mixtral/io/checkpoint.hpp"
#include "mixtral/text/tokenizer.hpp"

namespace mixtral {

struct OpenedModel {
  std::filesystem::path path;
  Checkpoint model;
  std::optional<Tokenizer> tokenizer;  // models without one work with ids

  // The tokenizer. Throws Error(kNotFound) if there is none.
  const Tokenizer& require_tokenizer() const;
};

// `path`: a directory, or a packed file, which brings its tokenizer along.
// Throws what load_checkpoint() and Tokenizer::load() throw, and Error(kBadFormat) if the tokenizer has more pieces
// than the model.
OpenedModel open_model(const std::filesystem::path& path, const LoadOptions& options = {});

}  // namespace mixtral
