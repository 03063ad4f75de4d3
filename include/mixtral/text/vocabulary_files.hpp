// Vocabularies from the files of a checkpoint. The bytes are hostile until parsed: everything is bounded by the
// size of the file, and every result has passed Vocabulary::validate().
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mixtral/io/embedded_files.hpp"
#include "mixtral/text/vocabulary.hpp"

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

// The small files that a tokenizer and a conversation's style are read from, as far as they are there: that one,
// tokenizer.json, tokenizer_config.json, special_tokens_map.json, added_tokens.json, chat_template.jinja and
// chat_template.json. `model` is a directory or a packed file, which brings them along.
std::vector<EmbeddedFile> read_tokenizer_files(const std::filesystem::path& model);

// A vocabulary from their contents; `where` begins every message. Throws Error(kNotFound | kBadFormat | kUnsupported).
//
// The model's own pieces are those of a SentencePiece model, without one those of tokenizer.json. Added tokens, and how
// they are found, are tokenizer.json's, if it has the same pieces; beside a SentencePiece model alone they are
// `added_tokens_decoder` of tokenizer_config.json or, without that, added_tokens.json, and the rules are those of
// transformers' Python tokenizer, `legacy` as the configuration says. `bos_token`, `eos_token` (else of
// special_tokens_map.json), `add_bos_token` and `add_prefix_space` of tokenizer_config.json are obeyed; a bos or eos
// token that is no piece counts as none.
Vocabulary parse_tokenizer_files(std::span<const EmbeddedFile> files, const std::string& where);

// The Jinja text of the conversation's template: chat_template.jinja, else `chat_template` of chat_template.json, else
// of tokenizer_config.json. Of several that have names the one called "default", otherwise the first. Throws
// Error(kBadFormat).
std::optional<std::string> find_chat_template(std::span<const EmbeddedFile> files, const std::string& where);

// The keys of the same tokenizer in a GGUF file, as one without tensors: GgufOptions::tokenizer of write_gguf(). Those
// that came from a GGUF file are as they were there. `n_ids`: the model's rows; ids without a piece become unused
// tokens, "[PAD7]". `ends`: what ends a sequence, which the tokenizer need not say. `notes` gets what such keys cannot
// say. Empty: no files. Throws what parse_tokenizer_files() throws, and Error(kUnsupported) if there are more pieces
// than rows.
std::string gguf_tokenizer(std::span<const EmbeddedFile> files, const std::string& where, Index n_ids,
                           std::span<const TokenId> ends, std::vector<std::string>& notes);

// read_tokenizer_files() and parse_tokenizer_files(). Throws Error(kNotFound | kIo | kBadFormat | kUnsupported).
Vocabulary load_vocabulary(const std::filesystem::path& model);

}  // namespace mixtral
