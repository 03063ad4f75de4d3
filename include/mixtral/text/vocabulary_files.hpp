// Vocabularies from the files of a checkpoint. The bytes are hostile until parsed: everything is bounded by the
// size of the file, and every result has passed Vocabulary::validate().
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mixtral/core/vocabulary.hpp"
#include "mixtral/io/embedded_files.hpp"

namespace mixtral {

// A SentencePiece ModelProto: BPE, without normalisation of the text. `source` begins every message. Throws
// Error(kBadFormat | kUnsupported).
Vocabulary parse_sentencepiece_model(std::string_view bytes, std::string_view source = "tokenizer.model");

// A Hugging Face tokenizer made from a SentencePiece BPE model: scores are minus the rank of the merge. Throws
// Error(kBadFormat), and kUnsupported where SentencePiece's algorithm would not give the file's ids.
Vocabulary parse_tokenizer_json(std::string_view text, std::string_view source = "tokenizer.json");

// The file of `directory` that load_vocabulary() reads: the first there is of `tokenizer.model`, Mistral's numbered
// `tokenizer.model.v3`, `.v2` and `.v1`, and `tokenizer.json`. Last `tekken.json`, which no model of this kind needs
// and load_vocabulary() refuses. Nothing: the model has no tokenizer.
std::optional<std::filesystem::path> find_tokenizer_file(const std::filesystem::path& directory);

// The files that a vocabulary is read from: that one and tokenizer_config.json, if they are there. `model` is a
// directory or a packed file, which brings them along.
std::vector<EmbeddedFile> read_tokenizer_files(const std::filesystem::path& model);

// A vocabulary from their contents; `where` begins every message. Throws Error(kNotFound | kBadFormat | kUnsupported).
Vocabulary parse_tokenizer_files(std::span<const EmbeddedFile> files, const std::string& where);

// Reads those files: the settings `add_bos_token`, `bos_token` and `eos_token` of `tokenizer_config.json` are applied,
// if there is one. A bos or eos token that is no piece counts as none. Throws Error(kNotFound | kIo | kBadFormat |
// kUnsupported).
Vocabulary load_vocabulary(const std::filesystem::path& model);

}  // namespace mixtral
