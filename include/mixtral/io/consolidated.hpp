// Checkpoints as Mistral publishes them itself: params.json and consolidated safetensors files.
#pragma once

#include <filesystem>

#include "mixtral/io/checkpoint.hpp"

namespace mixtral {

// Reads `dir`/params.json and the weights: consolidated.safetensors, or the shards of
// consolidated.safetensors.index.json, or all files consolidated*.safetensors together, of which numbered ones
// (consolidated-00001-of-0000N.safetensors) must be complete. The rows of wq and wk are in the order of interleaved
// RoPE, and stay so. No weight is copied.
//
// What params.json does not say: rope_theta is 1e6 (the default of Mistral's own implementation), the context
// 32768, no sliding window; bos and eos are ids 1 and 2; the head is a matrix of its own.
//
// Throws Error as load_huggingface() does. kUnsupported is also a model without `moe`, and every member that is
// not known here and not null: biases, quantisation, adapters, vision encoders.
Checkpoint load_consolidated(const std::filesystem::path& dir, Head head = Head::kRequired);

}  // namespace mixtral
