// A model's configuration from the keys of a GGUF file.
#pragma once

#include "io/gguf_keys.hpp"
#include "mixtral/io/gguf.hpp"
#include "mixtral/model/config.hpp"

namespace mixtral {

// Without vocab_size and tied_embeddings, which the tensors say. Throws Error(kUnsupported) about another architecture
// than "llama" with experts, and about keys that ask for another computation than this library's, by name; and what
// GgufFile's functions throw.
ModelConfig read_gguf_config(const GgufFile& file);

// The keys that say the same to that function and to other programs, vocab_size included; what begins and ends a
// sequence is the tokenizer's. Throws Error(kInvalidArgument) about a number that no u32 holds.
void add_gguf_config(const ModelConfig& config, GgufKeys& keys);

}  // namespace mixtral
