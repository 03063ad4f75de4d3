// config.json and generation_config.json of Hugging Face checkpoints.
#pragma once

#include <filesystem>
#include <string>

#include "mixtral/model/config.hpp"

namespace mixtral {

struct HfConfig {
  ModelConfig model;         // valid
  std::string quantization;  // what config.json says of quantised weights, for messages; empty: nothing
};

// Reads `dir`/config.json, and the end-of-sequence ids of `dir`/generation_config.json if it exists. Members that are
// absent mean what they mean to Hugging Face's MixtralConfig. Errors as load_huggingface().
HfConfig read_hf_config(const std::filesystem::path& dir);

}  // namespace mixtral
