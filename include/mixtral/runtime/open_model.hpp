// A checkpoint together with its tokenizer: what a program opens.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "mixtral/io/checkpoint.hpp"
#include "mixtral/text/chat_template.hpp"
#include "mixtral/text/tokenizer.hpp"

namespace mixtral {

struct OpenedModel {
  std::filesystem::path path;
  Checkpoint model;                          // its `notes` are the tokenizer's, too
  std::optional<Tokenizer> tokenizer;        // models without one work with ids
  std::optional<std::string> chat_template;  // Jinja, as the files have it

  // The tokenizer. Throws Error(kNotFound) if there is none.
  const Tokenizer& require_tokenizer() const;
  // The style of conversations, and why. Throws what require_tokenizer() and choose_chat_style() throw.
  ChatStyleChoice chat_style() const;
};

// `path`: a directory, or a packed file, which brings its tokenizer along. What ends a sequence is in
// `model.config.eos_ids`: all that the configurations and the tokenizer name, and <|im_end|> where conversations are in
// ChatML. Throws what load_checkpoint() and Tokenizer::load() throw.
OpenedModel open_model(const std::filesystem::path& path, const LoadOptions& options = {});

// The tokenizer of a model whose weights need not be there. If there is a configuration, ids up to the model's
// vocab_size may be decoded. Throws what Tokenizer::load() throws.
Tokenizer open_tokenizer(const std::filesystem::path& path);

}  // namespace mixtral
