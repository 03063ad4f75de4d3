// Writing a model as a Hugging Face directory.
#pragma once

#include <filesystem>

#include "mixtral/model/config.hpp"
#include "mixtral/model/weights.hpp"

namespace mixtral {

// Writes config.json and model.safetensors with the names of transformers 4, weights in the types they have,
// so that load_huggingface() and other programs read the same model. `dir` is created if need be; each file is
// written atomically. Throws Error(kUnsupported) on interleaved RoPE, whose checkpoints are permuted, and on
// linear RoPE scaling with an attention_factor; Error(kIo); files already written stay.
void write_huggingface(const std::filesystem::path& dir, const ModelConfig& config, const Weights& weights);

}  // namespace mixtral
