// A model's configuration from the keys of a GGUF file.
#pragma once

#include "mixtral/io/gguf.hpp"
#include "mixtral/model/config.hpp"

namespace mixtral {

// Without vocab_size and tied_embeddings, which the tensors say. Throws Error(kUnsupported) about another architecture
// than "llama" with experts, and about keys that ask for another computation than this library's, by name; and what
// GgufFile's functions throw.
ModelConfig read_gguf_config(const GgufFile& file);

}  // namespace mixtral
