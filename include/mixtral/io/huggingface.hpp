// Checkpoints as Hugging Face directories: config.json and safetensors files.
#pragma once

#include <filesystem>

#include "mixtral/io/checkpoint.hpp"

namespace mixtral {

// Reads `dir`/config.json, generation_config.json if there is one (its eos_token_id wins), and the weights:
// model.safetensors, or the shards of model.safetensors.index.json, or without these all files
// model-00001-of-0000N.safetensors, in which no tensor may come twice. Members that config.json lacks mean what they
// mean to Hugging Face's MixtralConfig; null means none, and for num_key_value_heads as many as heads. Tensors may have
// the names of transformers 4 or the fused experts of transformers 5, those of a saved MixtralModel lack "model.", any
// order, any alignment, F32, F16 or BF16 each. No weight is copied.
//
// Throws Error, always naming the file and the key or tensor:
//   kNotFound      a file does not exist
//   kBadFormat     a file breaks its format, a value is out of range, a tensor is missing (the head, too, unless it is
//                  Head::kNone) or has another shape, a number of a router or a norm is not finite
//   kUnsupported   legal, but it would compute something else: another architecture or activation, RoPE
//                  scaling but linear and yarn, attention biases, quantisation, tensors that the model has no place for
//                  (rotary_emb.inv_freq and the lm_head of a tied model are ignored, and so is a quantization_config
//                  where all tensors are F32, F16 or BF16: Checkpoint::notes)
//   kIo            the system refused
// Nothing is allocated from a size that a file claims before it was checked against the files' real sizes.
Checkpoint load_huggingface(const std::filesystem::path& dir, Head head = Head::kRequired);

}  // namespace mixtral
